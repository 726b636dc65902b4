"""A loader on a store in a bucket: a folder's batches, fetched before they are needed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bucket_support import NOT_THE_CLOUDS, make_bucket, s3_server, upload
from clips_support import DATA, MODEL, same
from mofo_train.data.dataset import PretrainClips
from mofo_train.data.loader import Batch, create_loader
from mofo_train.data.motion_clips import MotionClips
from mofo_train.data.reader import ClipReader
from mofo_train.data.sampler import ResumableSampler, SampleKey
from motionbox.errors import ClipError, Reason
from motionbox.store import open_store
from motionbox.store.reading import clips as store_clips

URL = "s3://stores/training"
BATCH, EPOCHS = 3, 2


@pytest.fixture(scope="module")
def s3(clips_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """The store with the frames of twelve clips, in a bucket."""
    with s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        for variable, value in {**NOT_THE_CLOUDS, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(variable, value)
        patch.setenv("MOTIONBOX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        make_bucket(endpoint, "stores")
        upload(URL, clips_store_path)
        yield


def training(place: Path | str, *, cache_gib: float = 0.0) -> PretrainClips:
    reader = ClipReader(open_store(place), Path("none"), split=None, short_side_px=80, cache_gib=cache_gib)
    return PretrainClips(reader, MODEL, DATA, seed=0, patch_px=16)


def sampler(start_step: int = 0) -> ResumableSampler:
    return ResumableSampler(12, BATCH, seed=0, epochs=EPOCHS, start_step=start_step)


def batches(clips: PretrainClips, *, num_workers: int = 0, start_step: int = 0) -> Iterator[Batch]:
    return iter(create_loader(clips, sampler(start_step), num_workers=num_workers, pin=False))


def digest(found: Iterator[Batch]) -> str:
    told = hashlib.sha256()
    for batch in found:
        told.update(repr((batch.clips, batch.bad)).encode())
        told.update(batch.frames.contiguous().numpy().tobytes())
        told.update(batch.boxes.numpy().tobytes())
    return told.hexdigest()


class Requests:
    """Counts requests for blocks, by unit and offset, and remembers when the first frame was decoded."""

    def __init__(self, patch: pytest.MonkeyPatch, wait_for: int = 0) -> None:
        self.seen: list[tuple[str, int]] = []
        self.before_first_decode = -1
        self._changed = threading.Condition()
        self._wait_for = wait_for
        self._read, self._decode = store_clips._File.read, store_clips.read_index
        patch.setattr(store_clips._File, "read", lambda file, offset, size: self.read(file, offset, size))
        patch.setattr(store_clips, "read_index", self.decode)

    def read(self, file: Any, offset: int, num_bytes: int) -> bytes:
        with self._changed:
            self.seen.append((file._path.parent.name, offset))
            self._changed.notify()
        return self._read(file, offset, num_bytes)

    def decode(self, data: bytes) -> Any:
        if self.before_first_decode < 0:
            with self._changed:
                self._changed.wait_for(lambda: len(self.seen) >= self._wait_for, timeout=60)
                self.before_first_decode = len(self.seen)
        return self._decode(data)


@pytest.mark.parametrize("start_step", [0, 3])
def test_a_bucket_gives_the_batches_of_a_folder(s3: None, clips_store_path: Path, start_step: int) -> None:
    """Also where a training goes on in the middle of an epoch."""
    here = list(batches(training(clips_store_path)))[start_step:]
    there = list(batches(training(URL), start_step=start_step))
    assert len(there) == 8 - start_step
    assert all(same(one, other) for one, other in zip(here, there, strict=True))


def test_workers_give_the_batches_of_a_folder(s3: None, clips_store_path: Path) -> None:
    """In a fresh process: its workers are children of a server that knows where the bucket is."""
    code = (
        "import test_bucket_loader as t\n"
        "if __name__ == '__main__':\n"
        "    print(t.digest(t.batches(t.training(t.URL), num_workers=2)))\n"
    )
    paths = [str(Path(__file__).parent), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == digest(batches(training(clips_store_path))), done.stderr


def test_the_clips_of_later_batches_are_requested_before_the_first_is_decoded(
    s3: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each once, although each is needed in both epochs, and none that nobody needs."""
    requests = Requests(monkeypatch, wait_for=12)
    found = list(batches(training(URL)))
    assert requests.before_first_decode == 12
    assert len(set(requests.seen)) == 12
    assert len(found) == 8
    assert len(requests.seen) == 12


def test_a_loader_that_is_dropped_does_not_disturb_the_next(s3: None, clips_store_path: Path) -> None:
    clips = training(URL)
    dropped = batches(clips)
    next(dropped)
    after = list(batches(clips, start_step=4))
    assert all(
        same(one, other) for one, other in zip(list(batches(training(clips_store_path)))[4:], after, strict=True)
    )
    assert next(dropped).clips == list(batches(training(clips_store_path)))[1].clips


def test_a_folder_is_read_block_by_block_when_its_sample_is_made(
    clips_store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Requests(monkeypatch)
    clips = training(clips_store_path)
    list(batches(clips))
    assert requests.before_first_decode == 1
    assert len(requests.seen) == 24


def test_an_object_that_cannot_be_read_costs_its_sample_alone(
    s3: None, clips_store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same clip says so, with another in its place, whether it was fetched before it was needed or not."""
    store = open_store(clips_store_path)
    reader = training(clips_store_path)._reader
    wanted = next(iter(sampler(1)))[1]
    ((_, unit, offset, _),) = store._clips._blocks_of(store._tables.row(reader.clip_ids[wanted.clip]))
    attempt = store.info["units"][unit][1]
    real = store_clips._File.read

    def read(file: Any, begin: int, num_bytes: int) -> bytes:
        if (file._path.parent.name, begin) == (attempt, offset):
            raise ClipError(Reason.UNREADABLE, "planted")
        return real(file, begin, num_bytes)

    monkeypatch.setattr(store_clips._File, "read", read)
    here, there = (list(batches(training(place))) for place in (clips_store_path, URL))
    assert all(same(one, other) for one, other in zip(here, there, strict=True))
    assert [batch.bad for batch in there] == [batch.bad for batch in here]
    concerned = [any(key.clip == wanted.clip for key in keys) for keys in sampler()]
    assert sum(concerned) == EPOCHS
    own = (reader.clip_ids[wanted.clip], f"clip {reader.clip_ids[wanted.clip]}: planted")
    assert [own in batch.bad for batch in there] == concerned
    assert {name for batch in there for name, _ in batch.bad} == {own[0]}


def test_clips_that_are_kept_in_memory_are_fetched_whole_and_once(s3: None, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = Requests(monkeypatch)
    found = digest(batches(training(URL, cache_gib=1.0)))
    assert len(requests.seen) == len(set(requests.seen)) == 12
    monkeypatch.undo()
    assert found == digest(batches(training(URL)))


def test_only_the_blocks_of_a_samples_frames_are_requested(s3: None, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = training(URL)
    begun: list[tuple[str, list[int]]] = []
    monkeypatch.setattr(
        type(clips._reader._store),
        "read_ahead",
        lambda _, named, **_keep: begun.extend((name, frames.tolist()) for name, frames in named),
    )
    read: list[tuple[str, list[int]]] = []
    real = clips._reader.read

    def watched(index: int, frames: np.ndarray) -> Any:
        read.append((clips._reader.clip_ids[index], frames.tolist()))
        return real(index, frames)

    monkeypatch.setattr(clips._reader, "read", watched)
    list(batches(clips))
    assert begun == read
    assert len(read) == 24


def test_a_plain_loader_has_the_clips_of_a_batch_under_way_together(
    s3: None, clips_store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Requests(monkeypatch, wait_for=5)
    there = list(DataLoader(MotionClips(URL, num_frames=4, image_px=32), batch_size=5))
    assert requests.before_first_decode == 5
    assert len(requests.seen) == len(set(requests.seen)) == 12
    here = list(DataLoader(MotionClips(clips_store_path, num_frames=4, image_px=32), batch_size=5))
    assert [batch["clip_id"] for batch in there] == [batch["clip_id"] for batch in here]
    assert all(torch.equal(one["frames"], other["frames"]) for one, other in zip(here, there, strict=True))


def test_a_key_alone_is_read_without_a_loader(s3: None, clips_store_path: Path) -> None:
    key = SampleKey(0, 0, 5)
    assert torch.equal(training(URL)[key].frames, training(clips_store_path)[key].frames)
