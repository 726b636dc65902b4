import itertools
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionbox.extraction.plan import MAX_UNIT_FRAMES, plan_units, scan_inputs
from motionbox.inputs.schema import build_table
from motionbox.store.units import BLOCK_SECONDS, InputFile, inputs_table, units_of
from motionbox.video.frames import VideoHint

LARGE = 3 << 20


def plan(clips: list[tuple[str, float | None, float | None]], hint: VideoHint | None, size: int = LARGE, **options):
    manifest = build_table(
        {
            "clip_id": [f"c{i}" for i in range(len(clips))],
            "video_id": [video for video, _, _ in clips],
            "path": [f"{video}.mp4" for video, _, _ in clips],
            "start_seconds": [start for _, start, _ in clips],
            "stop_seconds": [stop for _, _, stop in clips],
        }
    )
    inputs = [InputFile(f"{video}.mp4", "file", size, 0) for video in dict.fromkeys(video for video, _, _ in clips)]
    return units_of(plan_units(manifest, inputs, Path("/data"), lambda _path: hint, **options))


def test_long_video_is_split_into_units_of_at_most_4096_frames() -> None:
    units = plan([("v", None, None)], VideoHint(36_000, 60.0), max_frames=MAX_UNIT_FRAMES)
    pieces = [piece for unit in units for piece in unit.pieces]
    assert pieces[0].first_block is None
    assert pieces[-1].stop_block is None
    assert all(a.stop_block == b.first_block for a, b in itertools.pairwise(pieces))
    assert max(unit.estimated_frames for unit in units) <= MAX_UNIT_FRAMES
    assert len(units) == 9  # 150 blocks of 240 frames, 17 to a unit
    assert [unit.num_clips for unit in units] == [0] * 8 + [1]


def test_short_videos_are_packed() -> None:
    units = plan([(f"v{i:03}", None, None) for i in range(200)], None, size=100_000, max_frames=MAX_UNIT_FRAMES)
    assert len(units) == 3  # 48 frames guessed from 100,000 bytes, 85 videos to a unit
    assert sum(unit.num_clips for unit in units) == 200
    assert [p.video_id for unit in units for p in unit.pieces] == [f"v{i:03}" for i in range(200)]


def test_overlapping_segments_are_processed_once() -> None:
    units = plan([("v", 1.0, 9.0), ("v", 5.0, 11.0), ("v", 100.0, 101.0)], VideoHint(36_000, 60.0), max_frames=4096)
    pieces = [(p.first_block, p.stop_block, p.num_clips) for unit in units for p in unit.pieces]
    assert pieces == [(0, 3, 2), (25, 26, 1)]


def test_margin_takes_in_the_blocks_beside_a_clip_and_all_takes_every_block() -> None:
    def blocks(**options: object) -> list[tuple[int | None, int | None, int]]:
        units = plan([("v", 4.5, 7.8), ("v", 30.0, 31.0)], VideoHint(2400, 60.0), max_frames=4096, **options)
        return [(p.first_block, p.stop_block, p.num_clips) for unit in units for p in unit.pieces]

    assert blocks() == [(1, 2, 1), (7, 8, 1)]
    assert blocks(margin_seconds=0.3) == [(1, 3, 1), (7, 8, 1)]
    assert blocks(margin_seconds=1.0) == [(0, 3, 1), (7, 8, 1)]
    assert blocks(spans="all", margin_seconds=1.0) == [(None, None, 2)]


def test_header_without_a_length_gives_one_open_piece() -> None:
    (unit,) = plan([("v", None, None)], VideoHint(None, 25.0))
    assert (unit.pieces[0].first_block, unit.pieces[0].stop_block) == (None, None)


def test_small_data_sets_are_cut_finer() -> None:
    assert len(plan([("v", None, None)], VideoHint(8000, 25.0))) == 40  # 2 blocks of 100 frames to a unit
    assert len(plan([("v", None, None)], VideoHint(400, 25.0))) == 2


@given(
    spans=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 500), st.floats(0.1, 60)), min_size=1, max_size=20),
    fps=st.sampled_from([1.0, 12.0, 29.97, 60.0, 240.0, 0.0, float("nan")]),
    max_frames=st.integers(1, 5000),
)
def test_every_time_of_every_clip_is_in_exactly_one_piece(spans, fps, max_frames) -> None:
    clips = [(video, start, start + length) for video, start, length in spans]
    units = plan(clips, VideoHint(1000, fps), max_frames=max_frames)
    pieces = [piece for unit in units for piece in unit.pieces]
    assert sum(piece.num_clips for piece in pieces) == len(clips)
    for video, start, stop in clips:
        for time in (start, (start + stop) / 2, max(start, stop - 1e-6)):
            owners = [
                p
                for p in pieces
                if p.video_id == video
                and p.first_block is not None
                and p.first_block * BLOCK_SECONDS <= time < p.stop_block * BLOCK_SECONDS
            ]
            assert len(owners) == 1


def test_inputs_are_looked_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"12345")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.jpg").touch()
    found = scan_inputs(tmp_path, ["a.mp4", "frames", "gone.mp4", "a.mp4", "nul\0l.mp4"])
    assert [(entry.path, entry.kind, entry.num_bytes) for entry in found] == [
        ("a.mp4", "file", 5),
        ("frames", "folder", 1),
        ("gone.mp4", "missing", 0),
        ("nul\0l.mp4", "missing", 0),
    ]
    assert inputs_table(found).column("path").to_pylist()[0] == "a.mp4"


@pytest.mark.parametrize("size", [0, 100, LARGE])
def test_probe_is_asked_for_large_files_only(size: int) -> None:
    asked = []
    manifest = build_table({"clip_id": ["v"], "video_id": ["v"], "path": ["v.mp4"]})
    result = plan_units(
        manifest, [InputFile("v.mp4", "file", size, 0)], Path("/d"), lambda path: asked.append(path), max_frames=100
    )
    assert isinstance(result, pa.Table)
    assert asked == ([Path("/d/v.mp4")] if size == LARGE else [])


def test_in_a_small_data_set_only_files_that_would_be_cut_are_looked_into() -> None:
    """By its size a file is 10 s at 60 fps and three pieces; its header says 8 s at 25 fps, which is one."""
    manifest = build_table({"clip_id": ["a", "b"], "video_id": ["a", "b"], "path": ["a.mp4", "b.mp4"]})
    inputs = [InputFile("a.mp4", "file", 1_200_000, 0), InputFile("b.mp4", "file", 100_000, 0)]
    asked: list[Path] = []

    def plan_with(hint: VideoHint | None) -> list[tuple[str, int | None, int]]:
        asked.clear()
        planned = plan_units(manifest, inputs, Path("/d"), lambda path: asked.append(path) or hint)
        return [
            (piece.video_id, piece.first_block, piece.estimated_frames) for u in units_of(planned) for piece in u.pieces
        ]

    assert plan_with(VideoHint(200, 25.0)) == [("a", None, 200), ("b", None, 48)]
    assert asked == [Path("/d/a.mp4")]
    assert [piece[:2] for piece in plan_with(None)] == [("a", None), ("a", 1), ("a", 2), ("b", None)]
