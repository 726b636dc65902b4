import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from motionbox.config import ExtractConfig
from motionbox.errors import ClipError, Reason, StoreError
from motionbox.extraction.snapshot import make_snapshot
from motionbox.inputs.schema import build_table
from motionbox.store import Store, clip_coder, open_store
from motionbox.store.writing.commit import read_commit
from motionbox.store.writing.runs import Run
from store_support import commit_units, green_of, make_run, number_videos, small_config

VIDEOS = {"long": "250@25", "breaks": "40@20!15", "bad": "error not_a_video", "one": "1@25"}
# Segments that overlap, that cross blocks (of 4 s) and with them units, and one that runs to the video's end.
CLIPS = {
    "early": ("long", 0.5, 3.1),
    "across": ("long", 2.0, 8.2),
    "whole": ("long", None, None),
    "breaks": ("breaks", None, None),
    "bad": ("bad", None, None),
    "one": ("one", None, None),
}


def extracted(root: Path, *, form: str = "jpeg", max_frames: int = 100) -> Run:
    number_videos(root / "videos", VIDEOS)
    columns = [[values[i] for values in CLIPS.values()] for i in range(3)]
    table = {"clip_id": list(CLIPS), "video_id": columns[0], "path": [f"{name}.num" for name in columns[0]]}
    manifest = build_table({**table, "start_seconds": columns[1], "stop_seconds": columns[2]})
    config = small_config(**{"store.clips": form})
    run = make_run(root / f"store{max_frames}", root / "videos", manifest, config=config, max_frames=max_frames)
    commit_units(run, colour=form != "none")
    make_snapshot(run)
    return run


def opened(run: Run) -> Store:
    return open_store(run.paths.root.parent.parent)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return extracted(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def store(run: Run) -> Store:
    return opened(run)


def shown(frames: np.ndarray) -> list[int]:
    """Return the green of each frame, rounded to the values that frames have."""
    return [round(value / 10) * 10 for value in frames[..., 1].mean((1, 2))]


@pytest.mark.parametrize("clip_id", ["early", "across", "whole", "breaks", "one"])
def test_every_frame_of_a_clip_is_the_one_of_its_time(store: Store, clip_id: str) -> None:
    times = store.frame_times(clip_id)
    fps = 20 if clip_id == "breaks" else 25
    frames = store.clip_frames(clip_id, range(len(times)))
    assert frames.shape == (len(store.frame_boxes(clip_id)), 48, 48, 3)
    assert shown(frames) == [green_of(round(time * fps)) for time in times]


def test_any_frames_in_any_order(store: Store) -> None:
    times = store.frame_times("across")
    assert times[0] == 2.0
    wanted = [140, 0, 51, 49, 50, 140]
    frames = store.clip_frames("across", np.array(wanted))
    assert shown(frames) == [green_of(50 + index) for index in wanted]
    assert store.clip_frames("across", wanted, short_side_px=24).shape == (6, 24, 24, 3)


def test_size_and_presence(store: Store) -> None:
    assert [store.has_clip(clip_id) for clip_id in CLIPS] == [True, True, True, True, False, True]
    assert store.clip_size("one") == (96, 96)  # what the text videos claim; real frames are of that size
    assert store.info["training_clips"]["num_clips"] == 5
    for call in (store.clip_size, lambda name: store.clip_frames(name, [0])):
        with pytest.raises(StoreError, match="keeps no frames of clip 'bad'"):
            call("bad")
    for indices in ([], [-1], [65], [[0]]):
        with pytest.raises(ValueError, match="frame_indices must be some of 0 to 64"):
            store.clip_frames("early", indices)
    assert not [name for name in store.clips().column_names if "clip_block" in name]


@pytest.mark.parametrize("form", ["jpeg", "h264"])
def test_content_does_not_depend_on_the_split(tmp_path: Path, form: str) -> None:
    few, many = (extracted(tmp_path, form=form, max_frames=count) for count in (4096, 100))
    assert len(few.paths.committed_units()) < len(many.paths.committed_units())
    assert opened(few).info["content_digest"] == opened(many).info["content_digest"]
    one, other = (opened(run).clip_frames("across", [0, 60, 150]) for run in (few, many))
    assert np.array_equal(one, other)


def test_the_digest_sees_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = opened(extracted(tmp_path / "a")).info["content_digest"]
    monkeypatch.setattr(clip_coder, "_JPEG_QUALITY", 50)
    assert opened(extracted(tmp_path / "b")).info["content_digest"] != before


def test_a_reader_survives_pickling_and_loads_no_opencv(store: Store) -> None:
    again = pickle.loads(pickle.dumps(store))  # noqa: S301  (our own)
    assert np.array_equal(again.clip_frames("early", [3]), store.clip_frames("early", [3]))
    code = (
        "import sys, motionbox.store\n"
        f"s = motionbox.store.open_store({str(store.path)!r}); s.clip_frames('early', [0])\n"
        "print([m for m in ('ray', 'cv2', 'numba', 'zarr', 'torch', 'scipy', 'rich') if m in sys.modules])\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr


def test_damage_is_a_clip_error(tmp_path: Path) -> None:
    run = extracted(tmp_path)
    unit = run.paths.committed_units()[0]
    path = run.paths.attempt(unit, read_commit(run.paths, unit)["attempt"]) / "clips.bin"
    content = path.read_bytes()
    damage = {
        Reason.NOT_A_VIDEO: b"\0" * len(content),
        Reason.DECODE_ERROR: content[:3000] + b"\0" * (len(content) - 3000),
        Reason.TRUNCATED: content[: len(content) // 3],
    }
    for reason, data in damage.items():
        path.write_bytes(data)
        with pytest.raises(ClipError) as caught:
            opened(run).clip_frames("early", [0, 64])
        assert caught.value.reason == reason
    path.unlink()
    with pytest.raises(ClipError, match="motionbox verify"):
        opened(run).clip_frames("early", [0])
    assert opened(run).clip_frames("breaks", [0]).shape[0] == 1


def test_a_block_that_cannot_be_coded_costs_its_clips_their_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = clip_coder.PieceClips.take

    def take(self, block: int) -> bytes:
        data = real(self, block)
        if block == 2:
            raise ClipError(Reason.ENCODE_ERROR, "planted")
        return data

    monkeypatch.setattr(clip_coder.PieceClips, "take", take)
    store = opened(extracted(tmp_path))
    statuses = dict(zip(CLIPS, store.clips().column("status").to_pylist(), strict=True))
    assert {name: (statuses[name], store.has_clip(name)) for name in ("early", "across", "whole")} == {
        "early": ("ok", True),
        "across": ("ok", False),
        "whole": ("ok", False),
    }
    (run,) = (tmp_path / "store100" / "runs").iterdir()
    rows = [row for path in run.glob("attempts/*/*/blocks.parquet") for row in pq.read_table(path).to_pylist()]
    assert [row["block"] for row in rows if row["clip_error"] == "encode_error: planted"] == [2]


def test_a_store_without_clips_is_what_it_would_be_without_the_option(tmp_path: Path) -> None:
    values = ExtractConfig().model_dump(mode="json", exclude={"preset"})
    assert values["store"].pop("clips") == "none"
    assert ExtractConfig.model_validate(values).digest() == ExtractConfig().digest()
    assert small_config(**{"store.clips": "jpeg"}).digest() != small_config().digest()
    store = opened(extracted(tmp_path, form="none"))
    assert store.config().store.clips == "none"
    assert not store.has_clip("early")
    assert len(store.frame_boxes("early")) == 65
    assert store.clips().num_rows == 6
