"""A store in a bucket as its readers see it: what a folder gives, from a cache that is checked, bounded and shared."""

import shutil
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import obstore
import pytest

from bucket_support import NOT_THE_CLOUDS, make_bucket, s3_server, upload
from motionbox.errors import ClipError, InputError, StoreError
from motionbox.extraction.snapshot import make_snapshot
from motionbox.storage.client import Client
from motionbox.storage.local_copies import user_cache
from motionbox.store import Store, open_store
from store_support import commit_units, make_run, number_videos, small_config

_URL = "s3://stores/one"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with training clips."""
    folder = tmp_path_factory.mktemp("local")
    manifest = number_videos(folder / "data", {"a": "60@10", "b": "20@10"})
    config = small_config(**{"store.clips": "jpeg"})
    run = make_run(folder / "store", folder / "data", manifest, config=config)
    commit_units(run, colour=True)
    make_snapshot(run)
    return folder / "store"


@pytest.fixture(scope="module")
def s3(local: Path) -> Generator[str]:
    with s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        for variable, value in {**NOT_THE_CLOUDS, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(variable, value)
        make_bucket(endpoint, "stores")
        upload(_URL, local)
        yield endpoint


@pytest.fixture
def cache(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOTIONBOX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _equal(one: Store, two: Store) -> None:
    assert one.clips().equals(two.clips())
    for clip_id, count in zip(one.clips()["clip_id"].to_pylist(), one.clips()["num_frames"].to_pylist(), strict=True):
        for array in ("frame_boxes", "frame_times", "motion_areas", "motion_maps", "frame_confidences"):
            assert np.array_equal(getattr(one, array)(clip_id), getattr(two, array)(clip_id))
        assert np.array_equal(one.clip_frames(clip_id, range(count)), two.clip_frames(clip_id, range(count)))


def test_a_store_in_a_bucket_is_read_as_one_in_a_folder(local: Path, cache: Path) -> None:
    with open_store(local) as here, open_store(_URL) as there:
        _equal(here, there)
    assert 0 < user_cache().num_bytes() < 100_000


def test_what_is_cached_is_not_fetched_again_and_is_let_go(cache: Path, local: Path) -> None:
    with open_store(_URL), open_store(_URL):
        files = sorted(path.name for path in cache.glob("[!.]*"))
        inodes = {name: (cache / name).stat().st_ino for name in files}
        user_cache().clear()  # removes nothing that is in use
        assert sorted(path.name for path in cache.glob("[!.]*")) == files
    with open_store(_URL) as there, open_store(local) as here:
        assert {name: (cache / name).stat().st_ino for name in files} == inodes
        _equal(here, there)
    user_cache().clear()
    assert list(cache.glob("[!.]*")) == []


def test_a_file_that_is_not_what_the_manifest_says_is_refused_and_not_kept(
    local: Path, cache: Path, tmp_path: Path
) -> None:
    shutil.copytree(local, tmp_path / "store")
    (boxes,) = (tmp_path / "store").glob("runs/*/snapshots/1/boxes.npy")
    data = bytearray(boxes.read_bytes())
    data[-1] ^= 1
    boxes.write_bytes(data)
    upload("s3://stores/flipped", tmp_path / "store")
    with pytest.raises(StoreError, match=r"s3://stores/flipped/.*boxes.npy is damaged: another digest; run `motionbox"):
        open_store("s3://stores/flipped")
    assert not list(cache.glob("*boxes.npy*"))


def test_a_cache_that_is_too_small_is_said_with_its_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTIONBOX_CACHE_GIB", "0.0000001")
    with pytest.raises(StoreError, match=r"do not fit into the cache .*; raise MOTIONBOX_CACHE_GIB"):
        open_store(_URL)
    monkeypatch.setenv("MOTIONBOX_CACHE_GIB", "much")
    with pytest.raises(InputError, match="MOTIONBOX_CACHE_GIB must be a number of GiB, got 'much'"):
        open_store(_URL)


def test_clips_begun_ahead_are_those_that_are_read(local: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    real = Client.read_ranges

    def read_ranges(client: Client, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        asked.extend(ranges)
        return real(client, key, ranges)

    monkeypatch.setattr(Client, "read_ranges", read_ranges)
    with open_store(local) as here, open_store(_URL) as there:
        here.read_ahead([("a", None)])  # nothing to do in a folder
        there.read_ahead([("a", [0, 3])])
        there.read_ahead([("b", None)], keep=1)
        for clip_id in ("a", "b"):
            assert np.array_equal(there.clip_frames(clip_id, [0, 3]), here.clip_frames(clip_id, [0, 3]))
        assert len(set(asked)) == len(asked) == 2  # of the two blocks of `a` only the first is asked for
        assert np.array_equal(there.clip_frames("a", [59]), here.clip_frames("a", [59]))  # not begun, and read
        assert len(set(asked)) == len(asked) == 3


def test_a_clip_whose_object_is_gone_is_a_clip_error(local: Path, cache: Path, tmp_path: Path) -> None:
    bucket = upload("s3://stores/gone", local)
    with open_store("s3://stores/gone") as there:
        obstore.delete(bucket, [path.relative_to(local).as_posix() for path in local.rglob("clips.bin")])
        there.read_ahead([("a", None)])
        with pytest.raises(ClipError, match=r"clips.bin cannot be read: .*; run `motionbox verify` on the store"):
            there.clip_frames("a", [0])
