from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clips_support import AREA, DATA, MODEL, dataset, reader
from mofo_train.config import GuidanceConfig
from mofo_train.data.areas import FrameAreas, crop_map
from mofo_train.data.augment import _MOVING_OPS, apply_op, augment_clip, way_back
from mofo_train.data.reader import ClipReader, ClipUnreadableError
from mofo_train.data.sampler import SampleKey
from mofo_train.data.transforms import Crop
from mofo_train.data.views import ViewedClips
from mofo_train.errors import DataError
from mofo_train.finetune_config import AugmentConfig, ClassifierConfig, FinetuneDataConfig, ViewsConfig
from motionbox.store import Store, open_store


def test_strength_is_the_mean_over_a_tubelet() -> None:
    """Two cells of 8 pixels a patch side: each number is the mean of two frames of four cells, rounded up."""
    strength = np.random.default_rng(0).integers(0, 256, size=(4, 8, 8), dtype=np.uint8)
    placed = FrameAreas(strength, (8.0, 8.0)).on_tubelets((64, 64), crop_map(Crop(0, 0, 64, 64), 64), 64)
    expected = np.ceil(strength.reshape(2, 2, 4, 2, 4, 2).mean((1, 3, 5)))
    np.testing.assert_array_equal(placed.numpy(), expected)
    assert placed.dtype == torch.uint8


def test_a_trace_of_strength_is_kept_and_nothing_lies_beyond_the_frame() -> None:
    strength = np.zeros((2, 8, 8), np.uint8)
    strength[0, 3, 3] = 1
    areas = FrameAreas(strength, (8.0, 8.0))
    placed = areas.on_tubelets((64, 64), crop_map(Crop(0, 0, 64, 64), 64), 64)
    assert placed.nonzero().tolist() == [[0, 1, 1]]
    assert placed.max() == 1
    whole = FrameAreas(np.full((2, 8, 8), 255, np.uint8), (8.0, 8.0))
    shifted = whole.on_tubelets((64, 64), crop_map(Crop(32, 0, 64, 64), 64), 64)
    assert shifted[0].tolist() == [[255, 255, 0, 0]] * 4


def test_cells_beyond_the_frame_do_not_stretch_it() -> None:
    """A frame of 60 pixels has 7.5 cells of 8: the eighth is half outside, and the others stay where they are."""
    strength = np.zeros((2, 8, 8), np.uint8)
    strength[:, :, 4] = 255  # pixels 32 to 40 of 60
    placed = FrameAreas(strength, (7.5, 7.5)).on_tubelets((60, 60), crop_map(Crop(0, 0, 60, 60), 240), 240)
    # 32 to 40 of 60 pixels are 128 to 160 of 240: patches 8 and 9 of 15.
    assert placed[0, 0].nonzero().flatten().tolist() == [8, 9]


@given(st.integers(0, 100_000))
def test_the_quick_way_is_the_plain_way(seed: int) -> None:
    """A crop summed by products is that crop summed point by point, mirrored or not, also beyond the frame."""
    rng = np.random.default_rng(seed)
    areas = FrameAreas(rng.integers(0, 256, size=(4, 9, 12), dtype=np.uint8), (11.5, 8.25))
    straight = rng.uniform(-30, 30, size=(2, 3))
    straight[[0, 1], [1, 0]] = 0
    straight[[0, 1], [0, 1]] = rng.uniform(0.5, 2, 2) * [rng.choice([-1, 1]), 1]
    slanted = straight + np.array([[0, 1e-12, 0], [0, 0, 0]])
    both = [areas.on_tubelets((92, 66), way, 64).float() for way in (straight, slanted)]
    assert torch.equal(*both)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", [*_MOVING_OPS, "invert"])
def test_the_way_back_leads_to_where_pixels_come_from(name: str, sign: float) -> None:
    """A ramp of colours says of each pixel where it was."""
    ramp = torch.zeros(1, 3, 64, 80, dtype=torch.uint8)
    ramp[0, 0] = torch.arange(80) * 2
    ramp[0, 1] = torch.arange(64)[:, None] * 2
    moved = apply_op(name, ramp, 0.4, sign)
    back = way_back(name, (64, 80), 0.4, sign)
    for x, y in ((40, 32), (30, 40), (50, 22)):
        came = back @ np.array([x + 0.5, y + 0.5, 1]) - 0.5
        shown = moved[0, :2, y, x].float() / 2
        if name == "invert":
            shown = (255 - moved[0, :2, y, x].float()) / 2
        assert came.tolist() == pytest.approx(shown.tolist(), abs=0.7)


def painted(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Four frames of 128x160 and their areas, white and 255 in the same rectangle of cells of 8 pixels."""
    x, y = rng.integers(0, 14), rng.integers(0, 10)
    areas = np.zeros((4, 16, 20), np.uint8)
    areas[:, y : y + 6, x : x + 6] = 255
    return areas.repeat(8, 1).repeat(8, 2)[..., None].repeat(3, 3), areas


@pytest.mark.parametrize("ops", [0, 2])
def test_areas_follow_the_pixels_of_a_view(ops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Painting the areas and looking where the paint went is the definition."""
    monkeypatch.setattr("mofo_train.data.augment._OPS", _MOVING_OPS)
    monkeypatch.setattr("mofo_train.data.augment._FILL", [0, 0, 0])
    config = AugmentConfig(rand_ops=ops, erase_probability=0, flip_probability=0.5, crop_area=(0.3, 1))
    errors, seen = [], 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        pixels, strength = painted(rng)
        view, _, to_source = augment_clip(pixels, np.zeros((4, 4), np.float32), config, 96, rng)
        placed = FrameAreas(strength, (20.0, 16.0)).on_tubelets((160, 128), to_source, 96)
        paint = view[0].float().reshape(2, 2, 6, 16, 6, 16).mean((1, 3, 5))
        errors.append((placed - paint).abs().mean().item())
        seen += int(paint.max() > 128)
    assert seen > 30
    assert np.mean(errors) < 6, "of 255: only the borders between patches differ"


def stand_in(store_path: Path, **overrides: Any) -> Store:
    store = open_store(store_path)
    for name, value in overrides.items():
        setattr(store, name, value)
    return store


def clips_of(store: Store, store_path: Path, **options: Any) -> ClipReader:
    return ClipReader(store, store_path.parent / "synthetic", split=None, short_side_px=80, **options)


def test_areas_and_controls_of_a_store(store_path: Path) -> None:
    store = open_store(store_path)
    frames = np.array([0, 3, 3, 9])
    assert reader(store_path).areas(0, frames) is None, "boxes guide"
    stored = clips_of(store, store_path, guidance=AREA).areas(0, frames)
    assert stored is not None
    np.testing.assert_array_equal(stored.strength, store.motion_areas(store.clips()["clip_id"][0].as_py())[frames])
    assert stored.strength.any()
    full = clips_of(store, store_path, guidance=AREA, boxes="full_frame").areas(0, frames)
    moved, again = (clips_of(store, store_path, guidance=AREA, boxes="random").areas(0, frames) for _ in range(2))
    unsure = clips_of(store, store_path, guidance=AREA, min_confidence=1.0).areas(0, frames)
    assert full is not None
    assert moved is not None
    assert again is not None
    assert unsure is not None
    assert (full.strength == 255).all()
    assert not unsure.strength.any()
    np.testing.assert_array_equal(moved.strength, again.strength)
    assert (moved.strength != stored.strength).any()
    np.testing.assert_array_equal(np.sort(moved.strength, axis=None), np.sort(stored.strength, axis=None))


def test_another_source_is_asked_for_by_name(store_path: Path) -> None:
    asked = []

    def areas(_: str, frames: Any, *, source: str) -> NDArray[np.uint8]:
        asked.append(source)
        return np.zeros((len(frames), *shape), np.uint8)

    store = open_store(store_path)
    shape = store.motion_areas(store.clips()["clip_id"][0].as_py(), [0]).shape[1:]
    store = stand_in(store_path, guidance_sources=lambda: ["motion", "annotated"], motion_areas=areas)
    clips_of(store, store_path, guidance=GuidanceConfig(kind="area", source="annotated"))
    assert asked == ["annotated"]


def test_what_a_named_guidance_says_nothing_of_has_nothing_inside(store_path: Path) -> None:
    """Frames without a box, of a guidance that lacks the clip: no reason not to read it."""
    width, height = open_store(store_path).frame_size(open_store(store_path).clips()["clip_id"][0].as_py())
    held = np.array([[-1] * 4, [0, 0, width, height], [-1] * 4], np.int32)
    store = stand_in(store_path, guidance_sources=lambda: ["motion", "other"], frame_boxes=lambda *_, **__: held.copy())
    clips = clips_of(store, store_path, guidance=GuidanceConfig(source="other"))
    found = clips.boxes(0, np.array([0, 1, 2]), (width, height))
    assert found.tolist() == [[0] * 4, [0, 0, width, height], [0] * 4]
    with pytest.raises(ClipUnreadableError, match="boxes inside its"):
        clips_of(store, store_path).boxes(0, np.array([0, 1, 2]), (width, height))


def test_missing_guidance_is_one_clear_line(store_path: Path) -> None:
    with pytest.raises(DataError, match=r"guidance.source must be one of motion.*got 'annotated'.*import-boxes"):
        clips_of(open_store(store_path), store_path, guidance=GuidanceConfig(source="annotated"))
    store = stand_in(store_path, motion_areas=lambda *_, **__: np.zeros((2, 3, 5), np.uint8))
    with pytest.raises(DataError, match=r"areas of guidance 'motion' must be uint8 \(2, .*got uint8 \(2, 3, 5\)"):
        clips_of(store, store_path, guidance=AREA)


def test_samples_carry_areas_where_they_guide(store_path: Path) -> None:
    key = SampleKey(0, 0, 0)
    by_box, by_area = dataset(store_path)[key], dataset(store_path, guidance=AREA)[key]
    assert torch.equal(by_box.frames, by_area.frames), "guidance does not move the crops"
    assert by_box.areas.numel() == 0
    assert by_area.areas.shape == (2, MODEL.num_frames // 2, 4, 4)
    assert by_area.areas.dtype == torch.uint8
    assert by_area.areas.any()
    assert DATA.crops_per_clip == 2


def test_views_carry_areas_where_they_guide(store_path: Path) -> None:
    model = ClassifierConfig(name="videomae_tiny", num_frames=4, image_px=64)
    data = FinetuneDataConfig(dataset="synthetic", short_side_px=80, num_workers=0)
    views = ViewsConfig(segments=2, crops=3)
    by_box = ViewedClips(reader(store_path), model, data, views)[0]
    by_area = ViewedClips(reader(store_path, guidance=AREA), model, data, views)[0]
    assert by_box.areas.numel() == 0
    assert by_area.areas.shape == (6, 2, 4, 4)
    assert torch.equal(by_box.frames, by_area.frames)


def test_small_patches_read_the_strength_of_their_own_spot() -> None:
    strength = np.zeros((2, 8, 8), np.uint8)
    strength[:, 5, 2] = 200
    placed = FrameAreas(strength, (8.0, 8.0)).on_tubelets((64, 64), crop_map(Crop(0, 0, 64, 64), 64), 64, 8)
    assert placed.shape == (1, 8, 8)
    assert placed[0, 5, 2] == 200
    assert placed.count_nonzero() == 1
