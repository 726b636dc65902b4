import os
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from motionbox.errors import ClipError, Reason
from motionbox.video.decode_child import FRAMES_PER_ANSWER
from motionbox.video.frames import WHOLE, Span
from motionbox.video.sources import _QUEUED_ANSWERS, ChildLimits, ChildSource, DirectSource, HintProber


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, write_video) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (30, 64, 96), np.uint8)
    return write_video(tmp_path_factory.mktemp("videos") / "v.mp4", frames, fps=10)


@pytest.fixture(scope="module")
def child():
    source = ChildSource(48)
    yield source
    source.close()


def test_a_child_decodes_the_same_as_this_process(video: Path, child: ChildSource) -> None:
    for span in (WHOLE, Span(1.0, 2.05)):
        info, frames = child.open(video, span)
        direct_info, direct = DirectSource(48).open(video, span)
        assert info == direct_info
        for ours, theirs in zip(frames, direct, strict=True):
            assert (ours.index, ours.time_seconds) == (theirs.index, theirs.time_seconds)
            np.testing.assert_array_equal(ours.grey, theirs.grey)


@pytest.mark.parametrize(("enough", "last"), [(None, 29), (1.25, 13), (1.3, 13), (0.0, 5), (9.0, 29)])
def test_nothing_comes_after_the_first_frame_that_is_enough(video: Path, child: ChildSource, enough, last) -> None:
    span = Span(start_seconds=0.5, enough_seconds=enough)
    for source in (child, DirectSource(48)):
        times = [frame.time_seconds for frame in source.open(video, span)[1]]
        assert times == pytest.approx([number / 10 for number in range(5, last + 1)])


def test_the_reader_may_stop_early_and_open_another(video: Path, child: ChildSource) -> None:
    for _ in range(3):
        _, frames = child.open(video, WHOLE)
        assert next(frames).index == 0
        frames.close()
    assert len(list(child.open(video, WHOLE)[1])) == 30


def test_frames_before_an_error_come_first(tmp_path: Path, write_video, child: ChildSource) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (60, 64, 96), np.uint8)
    path = write_video(tmp_path / "v.mkv", frames)
    os.truncate(path, path.stat().st_size * 6 // 10)
    got: list[int] = []
    _, read = child.open(path, WHOLE)
    with pytest.raises(ClipError) as caught:
        got.extend(frame.index for frame in read)
    assert caught.value.reason in (Reason.TRUNCATED, Reason.DECODE_ERROR)
    assert got == list(range(len(got)))
    assert len(got) > 20
    with pytest.raises(ClipError) as caught:
        child.open(tmp_path / "gone.mp4", WHOLE)
    assert caught.value.reason is Reason.MISSING


def test_a_crash_costs_one_video(video: Path, write_video, tmp_path: Path) -> None:
    read_ahead = (_QUEUED_ANSWERS + 2) * FRAMES_PER_ANSWER  # one more is on its way into the queue, one was taken
    pixels = np.random.default_rng(0).integers(0, 255, (read_ahead + 40, 48, 64), np.uint8)
    long = write_video(tmp_path / "long.mp4", pixels, fps=10)
    source = ChildSource(48)
    _, frames = source.open(long, WHOLE)
    next(frames)
    source._child.kill()
    with pytest.raises(ClipError, match="signal 9") as caught:
        list(frames)
    assert caught.value.reason is Reason.CRASHED
    assert len(list(source.open(video, WHOLE)[1])) == 30
    source.close()


def test_a_hanging_child_is_killed_within_its_time(video: Path) -> None:
    source = ChildSource(48, ChildLimits(answer_seconds=20.0))
    source.open(video, WHOLE)
    process = source._child
    source._limits = ChildLimits(answer_seconds=0.3)
    os.kill(process.pid, 19)  # SIGSTOP
    with pytest.raises(ClipError, match=r"gave no frame for 0\.3 s") as caught:
        source.open(video, WHOLE)
    assert caught.value.reason is Reason.TIMEOUT
    assert process.poll() is not None


def test_memory_is_limited(tmp_path: Path, video: Path) -> None:
    source = ChildSource(48, ChildLimits(memory_bytes=64 << 20))
    with pytest.raises(ClipError) as caught:
        list(source.open(video, WHOLE)[1])
    assert caught.value.reason in (Reason.OUT_OF_MEMORY, Reason.CRASHED)
    source.close()


def test_the_child_dies_with_its_parent(video: Path) -> None:
    code = (
        "import sys, os, time, pathlib\nfrom motionbox.video.sources import ChildSource\ns = ChildSource(48)\n"
        f"s.open(pathlib.Path({str(video)!r}))\n"
        "print(s._child.pid, flush=True)\nos.kill(s._child.pid, 19)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    try:
        descriptor = os.pidfd_open(int(done.stdout))
    except ProcessLookupError:
        return  # gone already
    ended, _, _ = select.select([descriptor], [], [], 10)
    os.close(descriptor)
    assert ended


def test_hints_come_from_headers(video: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with HintProber() as probe:
        hint = probe(video)
        assert (hint.num_frames, hint.fps) == (30, 10.0)
        assert probe(tmp_path / "bad.mp4") is None
