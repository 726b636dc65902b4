import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionbox.errors import ClipError, Reason
from motionbox.extraction.blocks import iter_blocks
from motionbox.extraction.work_unit import PieceFault, process_unit
from motionbox.store.units import BLOCK_SECONDS, CONTEXT_SECONDS, FLOW, LAST, REPEATED, Piece, Unit
from motionbox.store.writing.attempt import UnitRows
from motionbox.video.frames import WHOLE, Frame
from store_support import DifferenceFlow, NumberSource, number_videos, small_config, unit_tables

GREY = np.zeros((16, 16), np.uint8)


def process(root: Path, *pieces: Piece, config=None, flow=None, **options):
    unit, config, rows = Unit("u0", pieces), config or small_config(), UnitRows((config or small_config()).store)
    for entry in process_unit(unit, config, root, NumberSource(), flow or DifferenceFlow(), **options):
        rows.add(entry)
    return rows.tables()


def piece(name: str, first: int | None = None, stop: int | None = None) -> Piece:
    return Piece(name, f"{name}.num", first, stop, 100)


@given(
    gaps=st.lists(st.floats(0.01, 3.0), min_size=1, max_size=80),
    start=st.floats(-5, 20),
    first=st.none() | st.integers(0, 5),
    length=st.none() | st.integers(1, 5),
)
def test_blocks_hold_every_wanted_frame_once(gaps, start, first, length) -> None:
    times = (start + np.cumsum(gaps)).tolist()
    stop = None if length is None else (first or 0) + length
    frames = iter([Frame(i, time, GREY) for i, time in enumerate(times)])
    blocks = list(iter_blocks(frames, piece("v", first, stop), 1.0))
    own = [frame.time_seconds for block in blocks for frame in block.frames[block.first : block.stop]]
    low = -np.inf if first is None else first * BLOCK_SECONDS
    high = np.inf if stop is None else stop * BLOCK_SECONDS
    assert own == [time for time in times if low <= time < high]
    for block in blocks:
        begin, end = block.number * BLOCK_SECONDS, (block.number + 1) * BLOCK_SECONDS
        shown = [frame.time_seconds for frame in block.frames]
        wanted = [t for t in times if begin - CONTEXT_SECONDS <= t < end + 1.0]
        assert shown[: len(wanted)] == wanted
        assert len(shown) <= len(wanted) + 1  # the frame that closed the block


def test_frames_before_an_error_are_kept() -> None:
    def broken():
        yield Frame(0, 0.0, GREY)
        yield Frame(1, 5.0, GREY)
        raise ClipError(Reason.TRUNCATED, "breaks off")

    blocks = []
    with pytest.raises(ClipError, match="breaks off"):
        blocks.extend(iter_blocks(broken(), piece("v"), 1.0))
    # extend() keeps nothing of a generator that raises, so read it one by one
    generator = iter_blocks(broken(), piece("v"), 1.0)
    assert [next(generator).number, next(generator).number] == [0, 1]


def test_a_broken_clock_is_refused() -> None:
    frames = (Frame(i, i * 1e-6, GREY) for i in range(1_000_000))
    with pytest.raises(ClipError, match="frames per second"):
        list(iter_blocks(frames, piece("v"), 1.0))


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"motion.window": 8},
        {"flow.step_seconds": 0.2},
        {"frames.duplicate_ratio": 0.2},
        {"store.motion_maps": False},
    ],
)
def test_content_does_not_depend_on_how_a_video_is_split(tmp_path: Path, overrides: dict[str, object]) -> None:
    number_videos(tmp_path, {"v": "500@25"})
    config = small_config(**overrides)
    whole = process(tmp_path, piece("v"), config=config)
    cuts = [None, 1, 2, 4, None]
    parts = [process(tmp_path, piece("v", first, stop), config=config) for first, stop in itertools.pairwise(cuts)]
    assert whole.frames.num_rows == 500
    digests = [row for part in parts for row in part.blocks.select(["block", "digest"]).to_pylist()]
    assert digests == whole.blocks.select(["block", "digest"]).to_pylist()
    assert len(digests) == 5
    assert sum(part.frames.num_rows for part in parts) == 500


class EagerSource(NumberSource):
    """Reads ahead of its reader as far as it may, and notes how far."""

    def open(self, path, span=WHOLE):
        info, frames = super().open(path, span)
        read = list(frames)
        self.last_seconds = read[-1].time_seconds
        return info, (frame for frame in read)


@pytest.mark.parametrize("step_seconds", [None, 0.5])
def test_no_frame_is_decoded_that_no_block_needs(tmp_path: Path, step_seconds) -> None:
    number_videos(tmp_path, {"v": "400@10"})
    source, config = EagerSource(), small_config(**{"flow.step_seconds": step_seconds})
    for first, stop in ((None, 2), (3, 5)):
        rows = list(process_unit(Unit("u0", (piece("v", first, stop),)), config, tmp_path, source, DifferenceFlow()))
        assert [entry.number for entry in rows] == list(range(first or 0, stop))
        assert source.last_seconds == stop * BLOCK_SECONDS + 1 + (step_seconds or 0)


def test_digest_sees_every_pixel(tmp_path: Path) -> None:
    number_videos(tmp_path / "a", {"v": "50@25"})
    number_videos(tmp_path / "b", {"w": "50@25"})
    a = process(tmp_path / "a", piece("v")).blocks.column("digest").to_pylist()
    b = process(tmp_path / "b", piece("w")).blocks.column("digest").to_pylist()
    assert a != b


def test_last_frame_takes_the_box_of_the_last_flow(tmp_path: Path) -> None:
    number_videos(tmp_path, {"v": "10@25"})
    flow = DifferenceFlow()
    result = process(tmp_path, piece("v"), flow=flow)
    rows = result.frames.to_pylist()
    assert flow.calls == 9
    assert [row["origin"] for row in rows] == [FLOW] * 9 + [LAST]
    assert rows[9]["x1"] is not None
    assert {name: rows[9][name] for name in ("x1", "y1", "x2", "y2", "map_index")} == {
        name: rows[8][name] for name in ("x1", "y1", "x2", "y2", "map_index")
    }
    assert result.maps.shape == (9, 12, 12)


def test_flows_across_block_borders_are_computed_once(tmp_path: Path) -> None:
    number_videos(tmp_path, {"v": "300@25"})
    flow = DifferenceFlow()
    process(tmp_path, piece("v"), flow=flow, config=small_config(**{"motion.window": 4}))
    assert flow.calls == 299


class Doubled(NumberSource):
    """Shows every frame twice, as 30 fps footage stored at 60 fps does."""

    def _frames(self, name, count, fps, start, stop, breaks):
        for frame in super()._frames(name, count, fps, start, stop, breaks):
            yield frame
            yield Frame(frame.index, frame.time_seconds + 0.4 / fps, frame.grey)


def test_repeated_frames_take_the_box_of_the_frame_they_repeat(tmp_path: Path) -> None:
    number_videos(tmp_path, {"v": "150@25"})
    config = small_config(**{"frames.duplicate_ratio": 0.2})
    flow = DifferenceFlow()
    unit = Unit("u0", (piece("v"),))
    doubled = unit_tables(unit, config, tmp_path, Doubled(), flow).frames.to_pylist()
    plain = process(tmp_path, piece("v"), config=config).frames.to_pylist()
    inner = slice(4, 290)  # the finder leaves the first and the last frames of a video alone
    assert [row["origin"] for row in doubled[inner]] == [FLOW, REPEATED] * 143
    names = ("x1", "y1", "x2", "y2", "energy")
    for first in (4, 5):
        shown = [[row[n] for n in names] for row in doubled[first:290:2]]
        assert shown == [[row[n] for n in names] for row in plain[2:145]]
    assert flow.calls <= 151


def test_one_frame_has_no_box(tmp_path: Path) -> None:
    number_videos(tmp_path, {"v": "1@25"})
    result = process(tmp_path, piece("v"))
    (row,) = result.frames.to_pylist()
    assert (row["x1"], row["map_index"], row["origin"]) == (None, None, LAST)
    assert result.maps.shape[0] == 0


def test_bad_videos_are_rows_and_the_others_go_on(tmp_path: Path) -> None:
    number_videos(tmp_path, {"a": "error not_a_video", "b": "20@25!7", "c": "30@25", "gone": ""})
    result = process(tmp_path, piece("a"), piece("b"), piece("gone"), piece("c"))
    rows = [(r["video_id"], r["num_frames"], r["reason"]) for r in result.blocks.to_pylist()]
    assert rows == [
        ("a", 0, "not_a_video"),
        ("b", 7, ""),
        ("b", 0, "truncated"),
        ("gone", 0, "missing"),
        ("c", 30, ""),
    ]


def test_a_crash_is_a_fault_of_the_attempt_until_the_video_is_skipped(tmp_path: Path) -> None:
    number_videos(tmp_path, {"a": "error crashed", "b": "20@25"})
    with pytest.raises(PieceFault) as caught:
        process(tmp_path, piece("a"), piece("b"))
    assert caught.value.video_id == "a"
    result = process(tmp_path, piece("a"), piece("b"), skip={"a": (Reason.CRASHED, "given up")})
    assert [(r["video_id"], r["reason"]) for r in result.blocks.to_pylist()] == [("a", "crashed"), ("b", "")]


def test_a_video_is_named_before_it_is_opened(tmp_path: Path) -> None:
    number_videos(tmp_path, {"a": "120@25", "b": "20@25"})
    source, seen = NumberSource(), []
    unit = Unit("u0", (piece("a"), piece("b")))

    def note(video_id: str) -> None:
        seen.append((video_id, len(source.opened)))

    rows = process_unit(unit, small_config(), tmp_path, source, DifferenceFlow(), on_video=note)
    assert [(entry.video_id, entry.number) for entry in rows] == [("a", 0), ("a", 1), ("b", 0)]
    assert seen == [("a", 0), ("b", 1)]


class _Batches(DifferenceFlow):
    """Computes flow a block at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def flows(self, pairs):
        self.batches.append(len(pairs))
        for frame0, frame1 in pairs:
            yield self(frame0, frame1)


@pytest.mark.parametrize("window", [1, 3])
def test_flows_in_batches_give_the_same_rows(tmp_path: Path, window: int) -> None:
    number_videos(tmp_path, {"v": "300@25"})
    config = small_config()
    config = config.model_copy(update={"motion": config.motion.model_copy(update={"window": window})})
    single, batches = DifferenceFlow(), _Batches()
    expected = process(tmp_path, piece("v"), config=config, flow=single)
    result = process(tmp_path, piece("v"), config=config, flow=batches)
    assert result.frames.equals(expected.frames)
    assert batches.calls == single.calls == sum(batches.batches)
    assert len([size for size in batches.batches if size]) == 3  # one a block, not one a pair
