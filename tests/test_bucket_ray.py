"""Two Ray nodes that share no path: videos and store in a bucket, each node with a scratch folder of its own."""

import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bucket_support import NOT_THE_CLOUDS, make_bucket, s3_server, upload
from motionbox.extraction.executors import RayExecutor, SerialExecutor, ray_environment
from motionbox.inputs.data_root import open_root
from motionbox.storage import parse_place
from motionbox.store import open_store
from ray_support import WhenStarted, finish, frame_folders, make_folder_run
from store_oracle import fingerprint

pytestmark = pytest.mark.slow


@pytest.fixture
def environment() -> Iterator[pytest.MonkeyPatch]:
    with s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        bucket = {**NOT_THE_CLOUDS, "AWS_ENDPOINT_URL": endpoint}
        for name, value in {**bucket, **ray_environment(local=True)}.items():
            patch.setenv(name, value)
        make_bucket(endpoint, "cluster")
        yield patch


def _tars(folders: Path, target: Path) -> Path:
    target.mkdir()
    for folder in sorted(folders.iterdir()):
        with tarfile.open(target / f"{folder.name}.tar", "w") as tar:
            for file in sorted(folder.iterdir()):
                tar.add(file, file.name)
    return target


def test_nodes_without_a_shared_path_give_the_store_of_one_machine(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ray.cluster_utils import Cluster

    (tmp_path / "frames").mkdir()
    data = _tars(frame_folders(tmp_path / "frames"), tmp_path / "tars")
    expected = finish(make_folder_run(tmp_path / "store", data), SerialExecutor())
    upload("s3://cluster/data", data)
    cluster: Any = Cluster()
    try:
        for name in ("one", "two"):
            environment.setenv("MOTIONBOX_SCRATCH", str(tmp_path / name))  # a node has the environment that it began in
            cluster.add_node(num_cpus=1, include_dashboard=False)
        environment.setenv("MOTIONBOX_SCRATCH", str(tmp_path / "driver"))
        run = make_folder_run(parse_place("s3://cluster/stores/x"), open_root("s3://cluster/data"))
        executor = RayExecutor(num_workers=2, address=cluster.address)
        killing = WhenStarted(run, lambda pid: os.kill(pid, signal.SIGKILL))
        try:
            digest = finish(run, executor, killing)
        finally:
            executor.close()
    finally:
        cluster.shutdown()
    assert killing.done
    assert digest == expected
    assert (tmp_path / "one" / ".lock").exists()
    assert (tmp_path / "two" / ".lock").exists()
    driver = tmp_path / "driver"  # it fetched no video; of the snapshot that it made there nothing is left
    assert [entry.relative_to(driver).as_posix() for entry in sorted(driver.rglob("*"))] == ["work", "work/.lock"]
    with open_store("s3://cluster/stores/x") as there, open_store(tmp_path / "store") as here:
        assert fingerprint(there) == fingerprint(here)
