import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from motionbox.errors import StoreError
from motionbox.storage import StorePath, posix
from motionbox.store.layout import check_store, run_paths
from motionbox.store.writing import runs
from motionbox.store.writing.lock import lock_holder, store_lock
from motionbox.store.writing.runs import load_run, prepare_store
from store_support import make_run, number_videos, small_config

VIDEOS = {"a": "60@25", "b": "30@25"}


def test_the_same_inputs_resume_the_same_run(tmp_path: Path) -> None:
    manifest = number_videos(tmp_path / "videos", VIDEOS)
    first = make_run(tmp_path / "store", tmp_path / "videos", manifest)
    again = make_run(tmp_path / "store", tmp_path / "videos", manifest, max_frames=10)
    assert again.run_id == first.run_id
    assert again.plan().equals(first.plan())  # the plan is part of the run
    assert len(run_paths(tmp_path / "store")) == 1
    assert first.info["versions"]["numpy"]
    assert load_run(first.paths).config == small_config()


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        ({"flow.method": "dis"}, ["flow.method: 'tvl1' -> 'dis'"]),
        (
            {"boxes.pad_share": 0.5, "motion.window": 8},
            ["boxes.pad_share: 0.05 -> 0.5", "motion.window: 1 -> 8"],
        ),
    ],
)
def test_changed_parameters_are_refused_with_a_diff(tmp_path: Path, overrides, lines) -> None:
    manifest = number_videos(tmp_path / "videos", VIDEOS)
    first = make_run(tmp_path / "store", tmp_path / "videos", manifest)
    with pytest.raises(StoreError, match="--new-run") as caught:
        make_run(tmp_path / "store", tmp_path / "videos", manifest, config=small_config(**overrides))
    for line in lines:
        assert line in str(caught.value)
    other = make_run(tmp_path / "store", tmp_path / "videos", manifest, config=small_config(**overrides), new_run=True)
    assert other.run_id != first.run_id
    assert make_run(tmp_path / "store", tmp_path / "videos", manifest).run_id == first.run_id


def test_changed_inputs_are_refused_by_name(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    manifest = number_videos(root, VIDEOS)
    make_run(tmp_path / "store", root, manifest)
    (root / "b.num").write_text("31@255")
    with pytest.raises(StoreError, match=r"1 input file changed: b\.num"):
        make_run(tmp_path / "store", root, manifest)
    (root / "b.num").write_text("30@25")
    os.utime(root / "b.num", (1, 1))
    with pytest.raises(StoreError, match=r"1 input file changed: b\.num \(in modified_unix\);"):
        make_run(tmp_path / "store", root, manifest)
    more = number_videos(root, {**VIDEOS, "c": "5@25"})
    with pytest.raises(StoreError, match="1 clip added: c"):
        make_run(tmp_path / "store", root, more)


def test_changed_labels_are_refused(tmp_path: Path) -> None:
    manifest = number_videos(tmp_path / "videos", VIDEOS)
    make_run(tmp_path / "store", tmp_path / "videos", manifest.append_column("verb", pa.array(["x", "y"])))
    other = manifest.append_column("verb", pa.array(["x", "z"]))
    with pytest.raises(StoreError, match=r"1 clip changed: b \(in verb\); .* in this store, which takes over what run"):
        make_run(tmp_path / "store", tmp_path / "videos", other)
    second = make_run(tmp_path / "store", tmp_path / "videos", other, new_run=True)
    assert second.manifest().column("verb").to_pylist() == ["x", "z"]
    changed = small_config(**{"boxes.pad_share": 0.5})
    with pytest.raises(StoreError, match=r"boxes.pad_share: 0.05 -> 0.5; .* in this store$"):
        make_run(tmp_path / "store", tmp_path / "videos", manifest, config=changed)


def test_a_store_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(StoreError, match="other files"):
        prepare_store(tmp_path / "full")
    (tmp_path / "zarr").mkdir()
    (tmp_path / "zarr" / "store.json").write_text('{"format": "x"}')
    with pytest.raises(StoreError, match="another program"):
        prepare_store(tmp_path / "zarr")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "store.json").write_text('{"format": "motionbox-store", "version": 2}')
    with pytest.raises(StoreError, match="upgrade"):
        prepare_store(tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        prepare_store(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_store_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StoreError, match="cannot be written"):
        prepare_store(tmp_path / "store")


def test_a_store_whose_creation_was_interrupted_is_taken_up(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".store.json.123").write_text("{")
    prepare_store(tmp_path / "store")
    (tmp_path / "store" / "runs").rmdir()
    prepare_store(tmp_path / "store")
    assert (tmp_path / "store" / "runs").is_dir()


def test_a_store_says_what_it_is(tmp_path: Path) -> None:
    prepare_store(tmp_path / "store")
    first = json.loads((tmp_path / "store" / "store.json").read_text())
    assert (first["format"], first["version"], len(first["uuid"])) == ("motionbox-store", 1, 36)
    prepare_store(tmp_path / "store")
    assert check_store(tmp_path / "store") == first
    assert sorted(entry.name for entry in (tmp_path / "store").iterdir()) == ["runs", "store.json"]


def test_a_half_made_run_is_not_one(tmp_path: Path) -> None:
    manifest = number_videos(tmp_path / "videos", VIDEOS)
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest)
    shutil.copytree(run.paths.root, run.paths.root.with_name(f".{run.run_id}.half"))
    assert [paths.root for paths in run_paths(tmp_path / "store")] == [run.paths.root]


def test_a_run_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    found_before: list[int] = []
    real = posix.fsync_directory

    def watching(path: Path) -> None:
        if path.name.startswith(".") or path == store / "runs":
            found_before.append(len(run_paths(store)))
        real(path)

    monkeypatch.setattr(posix, "fsync_directory", watching)
    manifest = number_videos(tmp_path / "videos", VIDEOS)
    run = make_run(store, tmp_path / "videos", manifest)
    assert found_before == [0, 1]  # everything is on disk, then the name appears
    assert run.plan().num_rows == 2


def _lock_in_another_process(store: Path) -> str:
    code = (
        "import sys; from pathlib import Path; from motionbox.errors import StoreError; "
        "from motionbox.store.writing.lock import store_lock\n"
        "try:\n    with store_lock(Path(sys.argv[1])): print('held')\n"
        "except StoreError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_a_second_process_is_told_who_holds_the_store(tmp_path: Path) -> None:
    prepare_store(tmp_path)
    assert lock_holder(tmp_path) is None
    with store_lock(tmp_path):
        assert f"process {os.getpid()}" in str(lock_holder(tmp_path))
        message = _lock_in_another_process(tmp_path)
        assert f"in use by process {os.getpid()}" in message
        assert "--force" in message
        with store_lock(tmp_path, force=True):
            pass
    assert lock_holder(tmp_path) is None
    assert _lock_in_another_process(tmp_path) == "held"


def test_a_file_system_on_which_commits_cannot_exclude_each_other_is_refused(tmp_path, monkeypatch) -> None:
    """One without hard links that lets a directory be renamed onto a full one."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def rename(source: Path, target: Path) -> Path:
        shutil.rmtree(target, ignore_errors=True)
        os.rename(source, target)  # noqa: PTH104
        return target

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StoreError, match="has no hard links and lets a directory be renamed onto another"):
        prepare_store(tmp_path / "store")
    assert [entry.name for entry in (tmp_path / "store").iterdir() if entry.name.startswith(".")] == []


def test_a_store_that_another_session_makes_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another first session makes the store between this one's look for it and its look for other files."""
    store, look = tmp_path / "store", runs.children
    made = []

    def meanwhile(path: StorePath) -> object:
        if not made:
            made.append(True)
            prepare_store(store)
            made.append((store / "store.json").read_bytes())
        return look(path)

    monkeypatch.setattr(runs, "children", meanwhile)
    prepare_store(store)
    assert (store / "store.json").read_bytes() == made[1]
    with pytest.raises(StoreError, match="a directory with other files"):
        prepare_store(tmp_path)
