"""Masks along the flow, against an implementation in plain NumPy loops and against known motion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from clips_support import reader
from mofo_train.config import MaskConfig
from mofo_train.data.areas import POINTS, FrameFlow, crop_map
from mofo_train.data.transforms import Crop
from mofo_train.guidance.flow_tubes import bumps, carried, flow_tube_mask
from mofo_train.guidance.mask_kinds import draw_mask, num_hidden_tokens
from mofo_train.guidance.tubelets import ClipShape
from motionbox.store import open_store

Grid = NDArray[np.float64]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _still(batch: int, side: int, frames: int = 4) -> torch.Tensor:
    return torch.zeros(batch, frames - 1, 2, side * POINTS, side * POINTS)


def _affine_steps(side: int, frames: int, move_xy: tuple[float, float], zoom: float) -> torch.Tensor:
    """Return the flow of a picture that is moved and zoomed about its middle from each frame to the next."""
    spots = (np.arange(side * POINTS) + 0.5) / POINTS
    x, y = np.meshgrid(spots, spots)
    step = np.stack([(zoom - 1) * (x - side / 2) + move_xy[0], (zoom - 1) * (y - side / 2) + move_xy[1]])
    return torch.from_numpy(step).float().expand(1, frames - 1, -1, -1, -1)


def _read_plainly(field: Grid, x: Grid, y: Grid) -> Grid:
    """Read a map at places in patches: bilinear, the border's values beyond it."""
    places = [value * POINTS - 0.5 for value in (y, x)]
    result: Grid = map_coordinates(field, places, order=1, mode="nearest")
    return result


def _carry_plainly(base: Grid, side: int, frames: int, move_xy: tuple[float, float], zoom: float) -> list[Grid]:
    """Carry a map by a motion that is known in closed form, there and back."""
    spots = (np.arange(side * POINTS) + 0.5) / POINTS
    x, y = np.meshgrid(spots, spots)
    middle, centre = frames // 2, side / 2
    maps = {middle: base}
    forth = [zoom * (axis - centre) + centre + move for axis, move in zip((x, y), move_xy, strict=True)]
    back = [(axis - move - centre) / zoom + centre for axis, move in zip((x, y), move_xy, strict=True)]
    for frame in [*range(middle - 1, -1, -1), *range(middle + 1, frames)]:
        place, nearer = (forth, frame + 1) if frame < middle else (back, frame - 1)
        outside = np.zeros(base.shape, bool)
        for axis in place:
            outside |= (axis < 0) | (axis > side)
        maps[frame] = np.where(outside, base, _read_plainly(maps[nearer], *place))
    return [maps[frame] for frame in range(frames)]


@settings(max_examples=60, deadline=None)
@given(
    side=st.integers(2, 6),
    frames=st.sampled_from([2, 4, 6]),
    move=st.tuples(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9)),
    zoom=st.floats(0.8, 1.25),
    seed=st.integers(0, 1000),
)
def test_maps_are_carried_as_by_a_motion_known_in_closed_form(
    side: int, frames: int, move: tuple[float, float], zoom: float, seed: int
) -> None:
    base = torch.rand(1, side * POINTS, side * POINTS, generator=_generator(seed))
    got = carried(base, _affine_steps(side, frames, move, zoom))[0].double().numpy()
    expected = _carry_plainly(base[0].double().numpy(), side, frames, move, zoom)
    # Beyond the border the stored flow ends and the closed form goes on, so only what stays inside is compared, and a
    # point that lies on the border by rounding may count as either.
    edge = max(1, int(np.ceil(POINTS * (max(map(abs, move)) + abs(zoom - 1) * side / 2) * frames / 2)) + 1)
    inner = slice(edge, side * POINTS - edge)
    for one, other in zip(got, expected, strict=True):
        assert np.abs(one[inner, inner] - other[inner, inner]).max(initial=0) < 2e-3


def test_a_patch_that_moves_one_patch_a_slot_is_followed() -> None:
    """Two frames a slot, half a patch a frame: visible are (1, 1), (1, 2) and (1, 3) of a 4 x 5 picture's rows."""
    side, frames = 5, 6
    maps = carried(bumps(torch.tensor([[1 * side + 2]]), side), _affine_steps(side, frames, (0.5, 0.0), 1.0))
    middles = maps[0].view(frames, -1).argmax(1)
    x = (middles % (side * POINTS) + 0.5) / POINTS
    y = (middles // (side * POINTS) + 0.5) / POINTS
    assert torch.allclose(y, torch.full((frames,), 1.5), atol=0.5 / POINTS + 1e-6)
    # The middle frame is the fourth; its patch begins at x = 2.5.
    expected = 2.5 + 0.5 * (torch.arange(frames) - frames // 2)
    assert torch.allclose(x, expected, atol=0.5 / POINTS + 1e-6)


def test_visible_patches_follow_and_fall_out_of_the_picture() -> None:
    steps = _affine_steps(6, 6, (0.5, 0.0), 1.0).expand(400, -1, -1, -1, -1)
    mask = flow_tube_mask(steps, mask_ratio=35 / 36, generator=_generator())
    visible = (~mask).view(400, 3, 36).float().argmax(2)
    column, row = visible % 6, visible // 6
    well_inside = (column[:, 1] >= 1) & (column[:, 1] <= 3)
    assert well_inside.sum() > 100
    assert (row == row[:, :1]).all()
    # The drawn patch belongs to frame 3, the second of the middle slot: the slots see it half a patch further left.
    shift = (column[:, 1:] - column[:, :-1])[well_inside].float()
    assert torch.allclose(shift.mean(0), torch.ones(2), atol=0.35)
    assert {float(value) for value in shift.unique()} <= {0.0, 1.0, 2.0}


@settings(max_examples=80, deadline=None)
@given(
    side=st.integers(1, 6),
    slots=st.integers(1, 4),
    ratio=st.floats(0, 1),
    strength=st.sampled_from([0.0, 0.3, 3.0, 100.0]),
    seed=st.integers(0, 2**31),
)
def test_every_slot_hides_exactly_the_same_number(
    side: int, slots: int, ratio: float, strength: float, seed: int
) -> None:
    """Whatever the flow, also one that no motion could make."""
    generator = _generator(seed)
    steps = strength * torch.randn(3, 2 * slots - 1, 2, side * POINTS, side * POINTS, generator=generator)
    mask = flow_tube_mask(steps, mask_ratio=ratio, generator=generator)
    assert (mask.view(3, slots, side**2).sum(2) == round(ratio * side**2)).all()


@settings(max_examples=60, deadline=None)
@given(side=st.integers(1, 14), ratio=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_without_motion_it_is_a_tube_mask_of_the_drawn_patches(side: int, ratio: float, seed: int) -> None:
    mask = flow_tube_mask(_still(2, side), mask_ratio=ratio, generator=_generator(seed)).view(2, 2, -1)
    assert torch.equal(mask[:, 0], mask[:, 1])
    drawn = torch.rand(2, side**2, generator=_generator(seed)).argsort(1)[:, round(ratio * side**2) :]
    expected = torch.ones(2, side**2, dtype=torch.bool).scatter(1, drawn, False)
    assert torch.equal(mask[:, 0], expected)


def test_without_motion_every_patch_is_hidden_equally_often() -> None:
    hidden = flow_tube_mask(_still(4000, 7), generator=_generator()).view(4000, 2, 49)[:, 0].float().mean(0)
    assert torch.allclose(hidden, torch.full((49,), round(0.9 * 49) / 49), atol=0.03)


def test_rows_of_a_batch_do_not_touch_each_other() -> None:
    moving = _affine_steps(4, 4, (0.4, 0.2), 1.05)
    both = torch.cat([moving, _still(1, 4)])
    base = torch.rand(2, 16, 16, generator=_generator())
    together = carried(base, both)
    assert torch.allclose(together[:1], carried(base[:1], moving), atol=1e-6)
    assert torch.allclose(together[1:], base[1:, None].expand(-1, 4, -1, -1), atol=1e-5)


def test_what_comes_out_from_behind_takes_the_base_map() -> None:
    """The left half moves left by a patch, the right half to the right: between them something new comes into view."""
    side = 6
    steps = _still(1, side, frames=2)
    steps[:, :, 0, :, : side * POINTS // 2], steps[:, :, 0, :, side * POINTS // 2 :] = -1, 1
    base = torch.rand(1, side * POINTS, side * POINTS, generator=_generator())
    # Two frames: the second is the middle one. Three: the third lies behind it.
    after = carried(base, torch.cat([steps, steps], 1))[0, 2]
    gap = slice((side // 2 - 1) * POINTS + 2, (side // 2 + 1) * POINTS - 2)
    assert torch.equal(after[:, gap], base[0][:, gap])
    assert torch.allclose(after[:, : POINTS * 2 - 1], base[0][:, POINTS : POINTS * 3 - 1], atol=1e-5)


def test_crops_see_the_flow_through_the_frames_between() -> None:
    """A whole frame of 80 x 60 px moves by 2 px a frame; a crop of 30 px is enlarged to 48 px: patches are 10 px."""
    frames = np.array([0, 3, 3, 5])
    steps = np.zeros((5, 2, 15, 20), np.float16)
    steps[:, 0] = 2 / 4
    flow = FrameFlow(steps, frames, (20.0, 15.0))
    found = flow.on_points((160, 120), crop_map(Crop(20, 10, 60, 60), 48), 48)  # read at twice the size
    assert found.shape == (3, 2, 12, 12)
    across = found[:, 0].float().flatten(1)
    assert torch.allclose(across, torch.tensor([[0.6], [0.0], [0.4]]).expand(-1, 144), atol=1e-3)
    assert (found[:, 1] == 0).all()


def test_a_path_bends_with_the_flow_it_meets() -> None:
    """Left of the middle everything moves right, right of it down: a point that crosses the border goes both ways."""
    steps = np.zeros((2, 2, 16, 16), np.float16)
    steps[:, 0, :, :8], steps[:, 1, :, 8:] = 4, 4
    found = FrameFlow(steps, np.array([0, 2]), (16.0, 16.0)).on_points((64, 64), crop_map(Crop(0, 0, 64, 64), 64), 64)
    # Cells are 4 px and points too: point (x, y) lies in cell (x, y). Patches are 4 cells.
    assert found[0, :, 3, 6].tolist() == [1, 1]
    assert found[0, :, 3, 2].tolist() == [2, 0]
    assert found[0, :, 3, 12].tolist() == [0, 2]


def test_a_crop_gets_the_stored_flow_of_its_pixels(flow_store_path: Path) -> None:
    """Averages over the crop, in pixels of the whole frame; the reader's frames are smaller than the flow."""
    clips = reader(flow_store_path)
    for index in (0, 5):
        width, height = clips.frame_wh(index)
        half = Crop(width // 4, height // 4, width // 2, height // 2)
        found = clips.flow(index, np.array([4, 5])).on_points((width, height), crop_map(half, 64), 64).float()
        stored = open_store(flow_store_path).flow(clips.clip_ids[index], [4])[0]
        rows, columns = (slice(length // 4, length * 3 // 4) for length in stored.shape[:2])
        in_patches = stored[rows, columns].mean((0, 1)) / (np.array(stored.shape[1::-1]) / 2 / 4)
        assert np.allclose(found[0].mean((1, 2)).numpy(), in_patches, atol=5e-4)
        assert np.abs(in_patches).max() > 0.005, "something moves"


def test_the_kind_hides_what_the_recipe_says() -> None:
    config, clip = MaskConfig(kind="flow_tube"), ClipShape(4, 96)
    steps = _affine_steps(6, 4, (0.3, -0.2), 1.1).half().expand(5, -1, -1, -1, -1)
    mask = draw_mask(config, clip, torch.zeros(5, 36, dtype=torch.bool), steps, _generator())
    assert (mask.sum(1) == num_hidden_tokens(config, clip)).all()


@pytest.mark.parametrize(
    ("shape", "rule"),
    [((1, 3, 2, 8, 12), "steps must be"), ((1, 3, 2, 6, 6), "multiple"), ((1, 4, 2, 8, 8), "one less")],
)
def test_misuse_is_named(shape: tuple[int, ...], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        flow_tube_mask(torch.zeros(shape), generator=_generator())
    with pytest.raises(ValueError, match="mask_ratio"):
        flow_tube_mask(_still(1, 2), mask_ratio=1.5, generator=_generator())
