"""Extraction and training read the same frames to the bit, whatever is odd about a video and however it is entered."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofo_train.data.reader import ClipReader
from motionbox.cli import main
from motionbox.errors import ClipError
from motionbox.store import Store, open_store
from motionbox.video import read_colour_frames, read_frames, read_frames_at
from motionbox.video.frames import Span
from motionbox.video.sources import ChildSource
from odd_videos import FPS, NUM_FRAMES, WRITERS, jumping_back, pictures, plain
from video_support import read_all, write_frames

HIDDEN = {"edit_list.mp4": 13, "edit_list.mov": 13, "begins_between_keyframes.ts": 8}  # first frames not to be shown
SEEDS = {"two_streams.mkv": 2, "two_streams.mp4": 2}
TURNS = {"turned_90.mp4": 3, "turned_180.mp4": 2, "turned_270.mov": 1}  # counter-clockwise, to undo a turn clockwise
CHANGING = {"shrinks.ts", "grows.mkv", "shrinks.webm", "two_descriptions_shrinks.mp4"}
FOLDERS = ("frames", "frames.tar")


@dataclass(frozen=True)
class Whole:
    """A video read in order from its beginning: times (T,), RGB (T, h, w, 3), grey (T, h, w)."""

    times: np.ndarray
    rgb: np.ndarray
    grey: np.ndarray


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    for name, write in WRITERS.items():
        write(folder / name)
    images = np.stack(pictures())[..., ::-1]
    write_frames(folder / "frames", images, "frame_{}.jpg")
    subprocess.run(["tar", "-cf", folder / "frames.tar", "-C", folder, "frames"], check=True)
    return folder


@cache
def whole(path: Path) -> Whole:
    colour, grey = list(read_colour_frames(path)), list(read_frames(path, short_side_px=4096))
    times = np.array([frame.time_seconds for frame in colour])
    assert times.tolist() == [frame.time_seconds for frame in grey]
    return Whole(times, np.stack([frame.rgb for frame in colour]), np.stack([frame.grey for frame in grey]))


@pytest.mark.parametrize("name", [*WRITERS, *FOLDERS])
def test_the_frames_are_those_that_were_written(odd: Path, name: str) -> None:
    """Every frame comes, in order, from the right stream, the right way up."""
    read = whole(odd / name)
    written = np.stack(pictures(seed=SEEDS.get(name, 0)))[HIDDEN.get(name, 0) :]
    assert len(read.times) == len(written)
    assert (np.diff(read.times) > 0).all()
    if name in CHANGING:
        assert len({frame.shape for frame in read.rgb}) == 1
        return
    turned = np.rot90(written, TURNS.get(name, 0), axes=(1, 2))
    assert read.rgb.shape == turned.shape
    small, known = read.rgb[:, ::4, ::4].astype(np.int16), turned[:, ::4, ::4].astype(np.int16)
    nearest = [int(np.abs(known - frame).mean((1, 2, 3)).argmin()) for frame in small]
    assert nearest == list(range(len(written)))


@pytest.mark.parametrize("name", [*WRITERS, *FOLDERS])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_spans_and_single_frames_equal_the_whole(odd: Path, name: str, data: st.DataObject) -> None:
    read = whole(odd / name)
    places = data.draw(st.lists(st.integers(0, len(read.times) - 1), min_size=1, max_size=6))
    assert np.array_equal(read_frames_at(odd / name, read.times[places]), read.rgb[places])

    first = data.draw(st.integers(0, len(read.times) - 1))
    start = float(read.times[first]) - data.draw(st.sampled_from([0.0, 0.01]))
    stop = start + data.draw(st.sampled_from([0.02, 0.3, 9.0]))
    expected = np.flatnonzero((read.times >= start) & (read.times < stop))
    colour = list(read_colour_frames(odd / name, start_seconds=start, stop_seconds=stop))
    grey = list(read_frames(odd / name, start_seconds=start, stop_seconds=stop, short_side_px=4096))
    assert [frame.time_seconds for frame in colour] == read.times[expected].tolist()
    assert [frame.time_seconds for frame in grey] == read.times[expected].tolist()
    assert np.array_equal(np.stack([frame.rgb for frame in colour]), read.rgb[expected])
    assert np.array_equal(np.stack([frame.grey for frame in grey]), read.grey[expected])


@pytest.fixture(scope="module")
def store(odd: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All of them through `motionbox extract`, and `--clips` once the boxes are there."""
    path = tmp_path_factory.mktemp("store") / "s"
    for clips in ([], ["--clips", "jpeg"]):
        options = ["--flow", "dis", "--executor", "serial", "--workers", "0", *clips]
        with pytest.raises(SystemExit) as stop:
            main(["extract", "--data-root", str(odd), "--store", str(path), *options])
        assert stop.value.code == 0
    store = open_store(path)
    assert list(store.info["rows_of"].values()) == [len(store.info["units"])]
    return store


def test_extraction_and_training_see_the_same_frames(odd: Path, store: Store) -> None:
    from_source = ClipReader(store, odd, split=None, short_side_px=4096, from_source=True)
    from_clips = ClipReader(store, odd, split=None, short_side_px=4096)
    paths = store.clips().column("path").to_pylist()
    assert sorted(paths) == sorted([*WRITERS, *FOLDERS])
    for index, path in enumerate(paths):
        read = whole(odd / path)
        assert store.frame_times(from_source.clip_ids[index]).tolist() == read.times.tolist(), path
        places = np.array([0, 1, 17, 30, 31, 44, len(read.times) - 1])
        pixels, _ = from_source.read(index, places)
        assert np.array_equal(pixels, read.rgb[places]), path
        coded, _ = from_clips.read(index, places)
        assert np.abs(coded.astype(int) - pixels).mean() < 10, path


def test_the_decoding_child_gives_the_same(odd: Path) -> None:
    source = ChildSource(4096, colour_short_side_px=4096)
    for name in [*WRITERS, *FOLDERS]:
        read = whole(odd / name)
        start = float(read.times[33])
        _, frames = source.open(odd / name, Span(start, start + 0.5))
        for place, frame in enumerate(frames, start=33):
            assert frame.time_seconds == read.times[place], name
            assert np.array_equal(frame.grey, read.grey[place]), name
            assert np.array_equal(frame.rgb, read.rgb[place]), name
    source.close()


@pytest.mark.parametrize("name", ["open_gop.mp4", "turned_90.mp4", "grows.mkv", "frames.tar"])
def test_reduced_frames_are_the_same_whoever_reads(odd: Path, name: str) -> None:
    """The trainer reduces while it converts; extraction's colour frames are made alike."""
    frames = list(read_colour_frames(odd / name, short_side_px=40))
    times = np.array([frame.time_seconds for frame in frames])
    assert min(frames[0].rgb.shape[:2]) == 40
    for places in ([3], [20, 41, 59]):
        pixels = read_frames_at(odd / name, times[places], short_side_px=40)
        assert np.array_equal(pixels, np.stack([frames[place].rgb for place in places]))


def test_frames_before_a_fault_are_the_same_from_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "broken.mkv"
    plain(path, "libx264", options={"g": "8", "bf": "2"})
    data = bytearray(path.read_bytes())
    middle = len(data) * 2 // 3
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(bytes(data))
    frames, error = read_all(path, short_side_px=4096, colour_short_side_px=4096)
    assert error is not None
    assert 20 < len(frames) < NUM_FRAMES
    for place in (0, 15, len(frames) - 1):
        assert np.array_equal(read_frames_at(path, np.array([frames[place].time_seconds]))[0], frames[place].rgb)
    with pytest.raises(ClipError, match="decoding broke"):
        read_frames_at(path, np.array([frames[-1].time_seconds + 2 / FPS]))


@pytest.mark.parametrize(("back_frames", "b_frames"), [(20, 0), (4, 2), (28, 2)])
def test_fragments_whose_times_jump_back_are_read_alike_from_everywhere(
    tmp_path: Path, back_frames: int, b_frames: int
) -> None:
    """FFmpeg passes over some of their frames, and the same ones whoever reads."""
    path = tmp_path / "fragments.mp4"
    jumping_back(path, back_frames, b_frames=b_frames)
    read = whole(path)
    assert len(read.times) > NUM_FRAMES // 2
    for place in range(0, len(read.times), 5):
        assert np.array_equal(read_frames_at(path, read.times[place : place + 1])[0], read.rgb[place])
        start = float(read.times[place])
        (frame,) = read_colour_frames(path, start_seconds=start, stop_seconds=start + 0.02)
        assert np.array_equal(frame.rgb, read.rgb[place])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", ["open_gop.mkv", "open_gop.mp4", "vp9.webm"])
def test_a_damaged_index_changes_no_frame(odd: Path, name: str, data: st.DataObject) -> None:
    """A seek that fails, or leads elsewhere, means reading from the beginning."""
    content = bytearray((odd / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(len(content) - 250, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = odd / f"damaged{Path(name).suffix}"
    path.write_bytes(bytes(content))
    frames, error = read_all(path, short_side_px=4096, colour_short_side_px=4096)
    if error is not None:
        return
    for place in (20, 50):
        if place < len(frames):
            pixels = read_frames_at(path, np.array([frames[place].time_seconds]))
            assert np.array_equal(pixels[0], frames[place].rgb)


def test_a_seek_that_leads_nowhere_means_reading_from_the_beginning(odd: Path, tmp_path: Path) -> None:
    """An index all of whose entries lie at 2.9 s leads to no earlier keyframe."""
    content = (odd / "open_gop.mkv").read_bytes()
    head, cues_id, cues = content.rpartition(b"\x1c\x53\xbb\x6b")
    late_cues = re.sub(
        rb"\xb3\x81.|\xb3\x82..", lambda found: _cue_time(2900, len(found[0]) - 2), cues, flags=re.DOTALL
    )
    path = tmp_path / "late_index.mkv"
    path.write_bytes(head + cues_id + late_cues)
    read = whole(odd / "open_gop.mkv")
    assert np.array_equal(read_frames_at(path, read.times[[30, 40]]), read.rgb[[30, 40]])
    part = list(read_frames(path, start_seconds=1.5, stop_seconds=1.8, short_side_px=4096))
    assert np.array_equal(np.stack([frame.grey for frame in part]), read.grey[30:36])


def _cue_time(milliseconds: int, num_bytes: int) -> bytes:
    return bytes([0xB3, 0x80 | num_bytes]) + min(milliseconds, 256**num_bytes - 1).to_bytes(num_bytes, "big")


def test_reading_for_training_loads_neither_ray_nor_opencv_nor_numba(odd: Path) -> None:
    code = """
import sys
from pathlib import Path
import numpy as np
from motionbox.video import probe, read_colour_frames, read_frames, read_frames_at
for name in ("turned_90.mp4", "grows.mkv", "rgb.mkv", "frames", "frames.tar"):
    path = Path(sys.argv[1], name)
    probe(path)
    next(read_frames(path, short_side_px=4096))
    next(read_colour_frames(path, short_side_px=40))
    read_frames_at(path, np.array([0.0, 1.0]), short_side_px=40)
print([name for name in ("ray", "cv2", "numba", "torch", "pyarrow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code, odd], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
