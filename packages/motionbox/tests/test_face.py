"""The public names: what they give is what the rooms behind them give."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import motionbox as mb
from motionbox.cli import main
from motionbox.config import load_config
from motionbox.synthetic import SyntheticConfig, draw_clip, plan_clips


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Grey, because PNG files are read as grey by a formula of their own."""
    config = SyntheticConfig(2, 5)
    return np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in draw_clip(plan_clips(config)[0], config).frames[:24]])


def test_importing_loads_nothing_else() -> None:
    code = (
        "import sys, motionbox; print(sorted({'numpy', 'cv2', 'av', 'pyarrow', 'pydantic', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert all(callable(getattr(mb, name)) for name in mb.__all__)
    assert set(mb.__all__) <= set(dir(mb))
    with pytest.raises(AttributeError, match="no attribute 'compute_flaw'"):
        mb.compute_flaw  # noqa: B018


@pytest.mark.parametrize("preset", ["tuned", "paper"])
def test_clip_boxes_are_those_of_a_store(frames: np.ndarray, preset: str, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "clip"
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):  # from 0, so that both have the same times to the bit
        cv2.imwrite(str(folder / f"{number:04d}.png"), frame)
    (tmp_path / "data" / "annotations.csv").write_text("path,frame_fps\nclip,24\n")
    arguments = ["extract", "--data-root", tmp_path / "data", "--store", tmp_path / "s", "--preset", preset]
    with pytest.raises(SystemExit) as done:
        main([*map(str, arguments), "--flow", "dis", "--workers", "0"])
    assert done.value.code == 0
    config = load_config(preset, overrides={"flow.method": "dis"})
    boxes, confidence = mb.clip_boxes(frames, 24, config)
    with mb.open_store(tmp_path / "s") as store:
        clip = store.clips()["clip_id"][0].as_py()
        np.testing.assert_array_equal(boxes, store.frame_boxes(clip))
        assert confidence == pytest.approx(store.clips()["confidence"][0].as_py(), abs=1e-6)
    assert boxes.dtype == np.int32


def test_areas_lie_where_the_boxes_are(frames: np.ndarray) -> None:
    config = load_config("tuned", overrides={"flow.method": "dis"})
    areas, (boxes, _) = mb.motion_areas(frames, 24, config), mb.clip_boxes(frames, 24, config)
    height, width = frames.shape[1:3]
    assert areas.shape[0] == len(frames)
    assert areas.any(axis=(1, 2)).all()
    inside, shares = [], []
    for area, (x1, y1, x2, y2) in zip(areas, boxes, strict=True):
        whole = cv2.resize(area, (width, height), interpolation=cv2.INTER_NEAREST).astype(float)
        inside.append(whole[y1:y2, x1:x2].sum() / whole.sum())
        shares.append((x2 - x1) * (y2 - y1) / (width * height))
    assert np.mean(inside) > 0.75
    assert np.mean(inside) > 1.2 * np.mean(shares), "more than of areas that know nothing of the boxes"


def test_colour_is_read_as_its_grey(frames: np.ndarray) -> None:
    config = load_config("paper", overrides={"flow.method": "dis"})
    colour = np.repeat(frames[..., None], 3, axis=3)
    np.testing.assert_array_equal(mb.clip_boxes(colour, 24, config)[0], mb.clip_boxes(frames, 24, config)[0])


@pytest.mark.parametrize(
    ("bad", "fps", "text"),
    [
        (np.zeros((4, 32, 32), np.float32), 24, "frames must be a uint8 array"),
        (np.zeros((1, 32, 32), np.uint8), 24, "T >= 2"),
        (np.zeros((4, 32, 32, 4), np.uint8), 24, r"\(T, H, W, 3\)"),
        (np.zeros((4, 32, 32), np.uint8), 0, "fps must be greater than 0"),
    ],
)
def test_wrong_clips_are_named(bad: np.ndarray, fps: float, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        mb.clip_boxes(bad, fps)


def test_colour_where_grey_is_wanted_says_how() -> None:
    frame = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match=r"cv2\.COLOR_RGB2GRAY"):
        mb.compute_flow(frame, frame)


def test_a_preset_of_another_map_is_refused() -> None:
    motion = np.zeros((32, 32), np.float32)
    assert mb.frame_box(motion, load_config("paper")) is None
    with pytest.raises(ValueError, match=r"motionbox\.clip_boxes"):
        mb.frame_box(motion, load_config("tuned"))
