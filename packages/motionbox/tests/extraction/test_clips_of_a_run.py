"""`extract --clips` on a run that keeps none, or another form: the frames are coded, nothing else is computed again."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from motionbox.cli import main
from motionbox.errors import ClipError, Reason
from motionbox.extraction.drive import EngineOptions, drive
from motionbox.extraction.progress import PlainReporter
from motionbox.extraction.snapshot import make_snapshot
from motionbox.pictures.report import build_report
from motionbox.scoring.guidance.controls import write_random
from motionbox.store import open_store
from motionbox.store.reuse.sibling_units import SiblingUnits
from motionbox.store.writing.commit import read_commit
from motionbox.store.writing.guidance_writer import GuidanceWriter
from motionbox.store.writing.runs import Run
from odd_videos import WRITERS
from store_oracle import fingerprint, whole_fingerprint
from store_support import DifferenceFlow, NumberSource, make_run, number_executor, number_videos, small_config

VIDEOS = {"a": "14@4", "b": "1@4", "long": "60@4", "none": "error not_a_video", "broken": "24@4!18"}
MAX_FRAMES = 32
NUM_WHOLE_UNITS = 3  # of five: in two there is no video without an error


class Extraction:
    """A store and sessions on it; counts what they decode and compute."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root / "videos", root / "store"
        self.manifest = number_videos(self.root, VIDEOS)
        self.source, self.flow = NumberSource(colour=True), DifferenceFlow()

    def run(self, store: Path | None = None, *, new_run: bool = False, **overrides: object) -> Run:
        config = small_config(**overrides)
        self.source, self.flow = NumberSource(colour=True), DifferenceFlow()
        run = make_run(
            store or self.store, self.root, self.manifest, config=config, max_frames=MAX_FRAMES, new_run=new_run
        )
        drive(run, number_executor(self.source, self.flow), EngineOptions(), PlainReporter())
        make_snapshot(run)
        return run


@pytest.fixture
def extraction(tmp_path: Path) -> Extraction:
    return Extraction(tmp_path)


def digest(run: Run) -> str:
    return str(open_store(run.paths.root.parents[1], run=run.run_id).info["content_digest"])


OTHERS: dict[str, dict[str, object]] = {
    "h264": {"store.clips": "h264"},
    "flow kept": {"store.flow": "float16"},
    "flow kept in bytes": {"store.flow": "uint8"},
    "no maps": {"store.motion_maps": False},
    "a window": {"motion.window": 8},
    "a step": {"flow.step_seconds": 0.5, "frames.duplicate_ratio": 0.4},
}


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
def test_the_content_is_that_of_a_run_with_clips_from_the_start(
    extraction: Extraction, tmp_path: Path, others: dict[str, object]
) -> None:
    wanted = {"store.clips": "jpeg"} | others
    whole = extraction.run(tmp_path / "whole", **wanted)
    calls = extraction.flow.calls
    extraction.run(**wanted | {"store.clips": "none"})
    run = extraction.run(**wanted)
    assert digest(run) == digest(whole)
    # Flow is computed for the one video that breaks off: it is tried again, as a run of its own would.
    assert 0 < extraction.flow.calls < 0.35 * calls
    if run.config.store.motion_maps:
        assert fingerprint(open_store(extraction.store)) == fingerprint(open_store(tmp_path / "whole"))


@pytest.mark.parametrize("clips", ["none", "jpeg"])
def test_other_labels_take_everything_over(extraction: Extraction, tmp_path: Path, clips: str) -> None:
    """But for videos that had failed, none is opened."""
    wanted = {"store.clips": clips, "store.flow": "float16"}
    first = extraction.run(**wanted)
    labels = pa.array([f"label {number}" for number in range(len(VIDEOS))])
    extraction.manifest = extraction.manifest.append_column("label", labels)
    run = extraction.run(new_run=True, **wanted)
    assert run.run_id != first.run_id
    assert digest(run) == digest(first)
    assert {name for name, *_ in extraction.source.opened} == {"none.num", "broken.num"}
    with open_store(extraction.store) as store:
        assert store.clips().column("label").to_pylist() == labels.to_pylist()
    extraction.run(tmp_path / "whole", **wanted)
    with open_store(extraction.store) as store, open_store(tmp_path / "whole") as whole:
        assert whole_fingerprint(store) == whole_fingerprint(whole)


def test_other_labels_and_training_clips_take_the_rows(extraction: Extraction, tmp_path: Path) -> None:
    extraction.run()
    extraction.manifest = extraction.manifest.append_column("label", pa.array(["x"] * len(VIDEOS)))
    run = extraction.run(new_run=True, **{"store.clips": "jpeg"})
    assert set(open_store(extraction.store).info["rows_of"].values()) == {NUM_WHOLE_UNITS}
    assert digest(run) == digest(extraction.run(tmp_path / "whole", **{"store.clips": "jpeg"}))


def test_another_span_of_a_clip_takes_nothing_over(extraction: Extraction) -> None:
    extraction.run()
    calls = extraction.flow.calls
    place = extraction.manifest.column_names.index("stop_seconds")
    stops = pa.array([2.0, *[None] * (len(VIDEOS) - 1)], pa.float64())
    extraction.manifest = extraction.manifest.set_column(place, "stop_seconds", stops)
    extraction.run(new_run=True)
    assert "rows_of" not in open_store(extraction.store).info
    assert extraction.flow.calls > 0.5 * calls


def test_another_form_takes_the_rows_too(extraction: Extraction, tmp_path: Path) -> None:
    whole = extraction.run(tmp_path / "whole", **{"store.clips": "jpeg"})
    extraction.run(**{"store.clips": "h264"})
    run = extraction.run(**{"store.clips": "jpeg"})
    assert digest(run) == digest(whole)
    assert set(open_store(extraction.store).info["rows_of"].values()) == {NUM_WHOLE_UNITS}


def test_what_the_other_run_has_not_done_is_computed(extraction: Extraction, tmp_path: Path) -> None:
    whole = extraction.run(tmp_path / "whole", **{"store.clips": "jpeg"})
    first = extraction.run()
    first.paths.commit("u000001").unlink()  # the second of three of which videos are known from end to end
    run = extraction.run(**{"store.clips": "jpeg"})
    assert digest(run) == digest(whole)
    taken = [unit for unit in run.paths.committed_units() if "rows_of" in read_commit(run.paths, unit)]
    assert taken == ["u000000", "u000002"]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(bytes(data))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("frames.parquet", _flip),
        ("blocks.parquet", _cut),
        ("motion.zarr/maps/c/0/0/0", _flip),
        ("motion.zarr/maps/c/0/0/0", Path.unlink),
        ("flow.zarr/48x48/c/0/0/0/0", _flip),
    ],
)
def test_damaged_rows_are_computed_anew(
    extraction: Extraction, tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    wanted = {"store.clips": "jpeg", "store.flow": "float16"}
    whole = extraction.run(tmp_path / "whole", **wanted)
    first = extraction.run(**wanted | {"store.clips": "none"})
    attempt = first.paths.attempt("u000000", read_commit(first.paths, "u000000")["attempt"])
    damage(attempt / name)
    assert digest(extraction.run(**wanted)) == digest(whole)


def test_a_file_with_other_frames_is_done_from_there_on(extraction: Extraction, tmp_path: Path) -> None:
    """Size and time of change are what they were, the frames are not: rows and frames never come from two videos."""
    extraction.run()
    path = extraction.root / "long.num"
    stamp = path.stat()
    path.write_text("54@4")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    run = extraction.run(**{"store.clips": "jpeg"})
    assert extraction.store != tmp_path / "whole"
    assert digest(run) == digest(extraction.run(tmp_path / "whole", **{"store.clips": "jpeg"}))


def test_a_video_that_failed_is_tried_again(extraction: Extraction, tmp_path: Path) -> None:
    """What made it fail may have been the machine; a run of its own would not know of it either."""
    whole = extraction.run(tmp_path / "whole", **{"store.clips": "jpeg"})
    real = NumberSource.open

    def crash(self, path: Path, **options):
        if path.name == "a.num":
            raise ClipError(Reason.CRASHED, "planted")
        return real(self, path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NumberSource, "open", crash)
        extraction.run()
    assert open_store(extraction.store).clips().to_pylist()[0]["status"] == "failed"
    assert digest(extraction.run(**{"store.clips": "jpeg"})) == digest(whole)


def test_it_is_said_what_is_done(
    extraction: Extraction, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = extraction.run()
    extraction.run(**{"store.clips": "jpeg"})
    assert f"rows of run {first.run_id} taken over where its 5 units are whole" in caplog.text
    with pytest.raises(SystemExit):
        main(["status", str(extraction.store)])
    assert f"rows    of {NUM_WHOLE_UNITS} units are those of run {first.run_id}" in capsys.readouterr().out
    with open_store(extraction.store) as store:
        page = build_report(store)
    assert f"{NUM_WHOLE_UNITS} units of run {first.run_id}" in page


def test_guidances_come_along(extraction: Extraction) -> None:
    first = extraction.run()
    with open_store(extraction.store) as store, GuidanceWriter(first.paths, "random") as writer:
        write_random(store, writer, like="motion", seed=5)
        writer.publish({"made": "at random"})
    before = whole_fingerprint(open_store(extraction.store))
    run = extraction.run(**{"store.clips": "jpeg"})
    assert SiblingUnits(run).carry_guidances(run) == ["random"]
    assert SiblingUnits(run).carry_guidances(run) == []
    with open_store(extraction.store) as store, open_store(extraction.store, run=first.run_id) as old:
        assert store.guidance_sources() == old.guidance_sources() == ["motion", "random"]
        for clip_id in store.clips().column("clip_id").to_pylist():
            for read in ("frame_boxes", "motion_areas"):
                seen, known = (getattr(opened, read)(clip_id, source="random") for opened in (store, old))
                assert np.array_equal(seen, known)
    assert whole_fingerprint(open_store(extraction.store, run=first.run_id)) == before


ODD = ("uneven.mkv", "late.mkv", "shrinks.webm", "turned_90.mp4", "begins_between_keyframes.ts", "edit_list.mp4")


@pytest.mark.parametrize("preset", ["paper", "release", "tuned"])
def test_odd_videos_of_every_preset(tmp_path: Path, preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command and the decoding child: several blocks, uneven times, a broken and a missing end."""
    root = tmp_path / "videos"
    root.mkdir()
    for name in ODD:
        WRITERS[name](root / name)
    data = (root / "uneven.mkv").read_bytes()
    (root / "broken.mkv").write_bytes(data[: len(data) // 2] + bytes(2000) + data[len(data) // 2 + 2000 :])
    (root / "garbage.mp4").write_bytes(b"no video" * 1000)

    def extract(store: str, *options: str) -> str:
        given = ["--preset", preset, "--flow", "dis", "--executor", "serial", *options]
        with pytest.raises(SystemExit) as caught:
            main(["extract", "--data-root", str(root), "--store", str(tmp_path / store), *given])
        assert caught.value.code == 3
        return capsys.readouterr().err

    extract("whole", "--clips")
    assert "taken over" not in extract("store")
    assert "taken over" in extract("store", "--clips")
    whole, taken = open_store(tmp_path / "whole"), open_store(tmp_path / "store")
    assert taken.info["content_digest"] == whole.info["content_digest"]
    assert fingerprint(taken) == fingerprint(whole)
    assert taken.info["training_clips"] == whole.info["training_clips"]
    assert taken.info["training_clips"]["num_clips"] >= len(ODD)
