"""Videos of a bucket in a worker: fetched, decoded, removed; and what becomes of those that cannot be."""

import os
import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pytest

from bucket_support import NOT_THE_CLOUDS, Answer, answering, make_bucket, refusal, s3_server, upload
from motionbox.errors import ClipError, CredentialsError
from motionbox.extraction.media.fetching import FetchingSource, give_up_following
from motionbox.extraction.plan import plan_units, scan_inputs
from motionbox.extraction.worker import Task, execute
from motionbox.inputs.data_root import DataRoot, open_root, place_below
from motionbox.storage.local_cache import LocalCache
from motionbox.storage.reading import ObjectEntry, Objects
from motionbox.store.units import InputFile, Piece, Unit, units_of
from motionbox.store.writing.commit import UnitTables
from motionbox.video.frames import WHOLE, Frame, Span
from store_support import DifferenceFlow, NumberSource, number_videos, small_config, unit_tables

_VIDEOS = {"a": "40@10", "b": "20@10", "c": "30@10"}


@pytest.fixture(scope="module")
def s3() -> Generator[str]:
    with s3_server() as endpoint:
        make_bucket(endpoint, "videos")
        yield endpoint


@pytest.fixture(autouse=True)
def _environment(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {**NOT_THE_CLOUDS, "AWS_ENDPOINT_URL": s3}.items():
        monkeypatch.setenv(variable, value)


class _Planned:
    """A unit of text videos, in a folder and in a bucket."""

    def __init__(self, folder: Path, url: str, videos: dict[str, str] | None = None) -> None:
        manifest = number_videos(folder, videos or _VIDEOS)
        self.local: DataRoot = folder
        self.store = upload(url, folder)
        self.root = open_root(url)
        self.inputs = scan_inputs(self.root, manifest.column("path").to_pylist())
        plan = plan_units(manifest, self.inputs, self.root, lambda _path: None)
        (self.unit,) = units_of(plan)

    def tables(self, cache: LocalCache, source: NumberSource | None = None) -> UnitTables:
        """Return what processing gives from the bucket."""
        fetching = self.source(cache, source or NumberSource())
        try:
            return unit_tables(self.unit, small_config(), self.root, fetching, DifferenceFlow())  # type: ignore[arg-type]
        finally:
            fetching.close()

    def source(self, cache: LocalCache, source: NumberSource, following: Piece | None = None) -> FetchingSource:
        pieces = [(piece, place_below(self.root, piece.path)) for piece in self.unit.pieces]
        after = None if following is None else (following, place_below(self.root, following.path))
        return FetchingSource(source, cache, pieces, {entry.path: entry for entry in self.inputs}, following=after)

    def read(self, fetching: FetchingSource, piece: Piece) -> int:
        """Return how many frames a piece gives."""
        place = place_below(self.root, piece.path)
        _, frames = fetching.open(place)
        return sum(1 for _ in frames)


class _Nameless(NumberSource):
    """Makes the same noise whatever a file is called: in scratch it has another name."""

    def _frames(self, name: str, *arguments: Any) -> Generator[Frame]:
        del name
        yield from super()._frames("video", *arguments)


def _reasons(tables: UnitTables) -> dict[str, str]:
    return {row["video_id"]: row["reason"] for row in tables.blocks.to_pylist() if row["reason"]}


def _messages(tables: UnitTables) -> str:
    return " ".join(row["message"] for row in tables.blocks.to_pylist())


def test_videos_of_a_bucket_give_what_they_give_from_a_folder_and_leave_nothing(tmp_path: Path) -> None:
    planned = _Planned(tmp_path / "data", "s3://videos/same")
    cache = LocalCache(tmp_path / "scratch", 1000)
    source = _Nameless()
    tables = planned.tables(cache, source)
    unit = planned.unit
    local = unit_tables(unit, small_config(), planned.local, _Nameless(), DifferenceFlow())  # type: ignore[arg-type]
    assert tables.frames.equals(local.frames)
    assert tables.blocks.equals(local.blocks)
    assert len(source.opened) == 3
    assert cache.num_bytes() == 0


class _Watching(NumberSource):
    """Notes what lies in scratch while a video is read, once all of it is there that will be."""

    def __init__(self, cache: LocalCache, num_files: int) -> None:
        super().__init__()
        self._cache, self._num_files = cache, num_files
        self.seen: list[int] = []

    def open(self, path: Path, span: Span = WHOLE) -> object:  # type: ignore[override]
        waited = threading.Event()
        for _ in range(200):
            held = [name for name in path.parent.iterdir() if name.suffix == ".num"]
            if len(held) >= self._num_files:
                break
            waited.wait(0.02)
        self.seen.append(len(held))
        return super().open(path, span)


def test_the_next_video_comes_while_the_present_one_is_read(tmp_path: Path) -> None:
    planned = _Planned(tmp_path / "data", "s3://videos/ahead")
    cache = LocalCache(tmp_path / "scratch", 1000)
    source = _Watching(cache, 2)
    unit = planned.unit
    planned.unit = Unit(unit.unit_id, unit.pieces[:2])
    fetching = planned.source(cache, source)
    first, _ = planned.unit.pieces
    fetching.open(place_below(planned.root, first.path))
    assert source.seen == [2]
    fetching.close()


@pytest.mark.parametrize("kept", [True, False])
def test_the_first_video_of_the_unit_to_come_is_fetched_with_the_last_of_this_one(tmp_path: Path, kept: bool) -> None:
    planned = _Planned(tmp_path / "data", f"s3://videos/following{kept}")
    first, second, _ = planned.unit.pieces
    cache = LocalCache(tmp_path / "scratch", 1000)
    planned.unit = Unit("u0", (first,))
    fetching = planned.source(cache, _Watching(cache, 2), following=second)
    assert planned.read(fetching, first) == 40
    if kept:
        fetching.keep_following()
    fetching.close()
    obstore.delete(planned.store, second.path)
    planned.unit = Unit("u1", (second,))
    fetching = planned.source(cache, NumberSource())
    if kept:
        assert planned.read(fetching, second) == 20
    else:
        with pytest.raises(ClipError, match="does not exist"):
            planned.read(fetching, second)
    fetching.close()
    assert cache.num_bytes() == 0


def test_a_fetch_that_is_given_up_ends_with_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it stays, also where it was begun for a unit to come."""
    planned = _Planned(tmp_path / "data", "s3://videos/given_up")
    first, second, _ = planned.unit.pieces
    begun, go_on = threading.Event(), threading.Event()

    def slow(_objects: Objects, entry: ObjectEntry, descriptor: int, beat: Callable[[], None]) -> None:
        if entry.key == second.path:
            begun.set()
            assert go_on.wait(20)
        beat()
        os.pwrite(descriptor, b"40@10", 0)

    monkeypatch.setattr(Objects, "fetch", slow)
    planned.unit = Unit("u0", (first,))
    cache = LocalCache(tmp_path / "scratch", 1000)
    fetching = planned.source(cache, NumberSource(), following=second)
    assert planned.read(fetching, first) == 40
    assert begun.wait(20)
    fetching.keep_following()
    fetching.close()
    assert cache.num_bytes() > 0
    give_up_following()
    go_on.set()
    fetching._pool.shutdown()
    assert cache.num_bytes() == 0


def test_scratch_never_holds_more_than_it_may_and_a_video_too_large_is_a_row(tmp_path: Path) -> None:
    planned = _Planned(tmp_path / "data", "s3://videos/bound", {**_VIDEOS, "long": "12@" + "1" * 20})
    cache = LocalCache(tmp_path / "scratch", 6)  # a text has five bytes, so one fits at a time
    tables = planned.tables(cache, _Watching(cache, 1))
    assert _reasons(tables) == {"long": "too_large"}
    assert "s3://videos/bound/long.num: 0.000 GiB do not fit into scratch (--scratch-gib" in _messages(tables)
    assert set(tables.frames.column("video_id").to_pylist()) == {"a", "b", "c"}


def test_a_missing_a_changed_and_a_broken_object_are_rows(tmp_path: Path) -> None:
    videos = {"gone": "20@10", "other": "20@10", "longer": "20@10", "broken": "error decode_error", "fine": "20@10"}
    planned = _Planned(tmp_path / "data", "s3://videos/faults", videos)
    obstore.delete(planned.store, "gone.num")
    obstore.put(planned.store, "other.num", b"21@10")
    obstore.put(planned.store, "longer.num", b"200@10")
    tables = planned.tables(LocalCache(tmp_path / "scratch", 1000))
    assert _reasons(tables) == {
        "gone": "missing", "other": "changed", "longer": "changed", "broken": "decode_error"
    }  # fmt: skip
    assert "s3://videos/faults/gone.num: does not exist" in _messages(tables)
    assert "s3://videos/faults/other.num: has changed since it was listed; --retry-failed takes it" in _messages(tables)
    assert str(tmp_path) not in _messages(tables)
    assert set(tables.frames.column("video_id").to_pylist()) == {"fine"}


def _answers(refused: dict[str, Answer]) -> Callable[[str, str], Answer]:
    def answer(_method: str, path: str) -> Answer:
        name = path.rpartition("/")[2].partition("?")[0]
        if name in refused:
            return refused[name]
        body = b"20@10"
        headers = {
            "Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}",
            "ETag": '"e"',
            "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        }
        return 206, headers, body

    return answer


@pytest.fixture
def planned(tmp_path: Path) -> _Planned:
    return _Planned(tmp_path / "data", "s3://videos/refused")


def test_a_forbidden_object_is_a_row_and_expired_credentials_are_the_end(
    planned: _Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned.inputs = [replace(entry, etag='"e"') for entry in planned.inputs]
    planned.root = open_root("s3://videos/refused")
    with answering(_answers({"b.num": refusal(403, "AccessDenied")})) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        tables = planned.tables(LocalCache(tmp_path / "scratch", 1000))
    assert _reasons(tables) == {"b": "unreadable"}
    assert "s3://videos/refused/b.num: access denied (AccessDenied: no)" in _messages(tables)
    planned.root = open_root("s3://videos/refused")
    with answering(_answers({"b.num": refusal(400, "ExpiredToken")})) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(CredentialsError, match=r"b.num: the credentials are not accepted \(ExpiredToken: no\)"):
            planned.tables(LocalCache(tmp_path / "scratch", 1000))
        answer = execute(_task(planned, tmp_path))
    assert answer.stop is not None
    assert "ExpiredToken" in answer.stop
    assert (answer.fault, answer.fatal, answer.store_error) == (None, None, None)


def _task(planned: _Planned, tmp_path: Path) -> Task:
    inputs = {entry.path: InputFile(**vars(entry)) for entry in planned.inputs}
    run = tmp_path / "run"
    (run / "attempts").mkdir(parents=True, exist_ok=True)
    config = small_config(**{"flow.method": "dis"})
    unit = Unit(planned.unit.unit_id, planned.unit.pieces[1:2])
    return Task(run, planned.root, unit, config, "auto", "token", {}, inputs=inputs, scratch_gib=1.0)
