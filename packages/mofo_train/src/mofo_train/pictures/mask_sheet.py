"""A sheet of training samples: what is inside by each guidance, and what the masks leave visible."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mofo_train.config import PretrainConfig
from mofo_train.data.dataset import PretrainClips, Sample
from mofo_train.data.reader import ClipReader
from mofo_train.data.sampler import SampleKey
from mofo_train.guidance.inspection import flow_masks_of, masks_of, reads_flow, shape_of
from mofo_train.guidance.rule import rule_figures
from mofo_train.guidance.tubelets import ClipShape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL_INCHES = 2.1
_HIDDEN_COLOUR = (0.25, 0.25, 0.25)
_HIDDEN_OPACITY = 0.8
_OUTLINE_POINTS = 8  # a side of each patch, so that its outline is nearly square


def draw_mask_sheet(
    config: PretrainConfig, readers: Mapping[str, ClipReader], path: Path, *, num_samples: int = 6
) -> None:
    """Draw samples of a recipe: the middle frame of a crop, then for each guidance its areas and its mask.

    The tubes inside are outlined; the hidden ones are dark. Every guidance sees the same crops. Where the recipe's
    masks follow the flow, the first, a middle and the last slot of such a mask come behind.

    Args:
        config: The recipe.
        readers: Title -> the same clips, opened with the guidance to show.
        path: The picture, a PNG.
        num_samples: Rows, of clips spread over the reader.

    Raises:
        DataError: Clips cannot be read.
    """
    from matplotlib.figure import Figure

    clip = shape_of(config)
    number = len(next(iter(readers.values())))
    chosen = np.unique(np.linspace(0, number - 1, min(num_samples, number)).round().astype(int))
    panels = 1 + sum(1 + (reader.guidance.kind == "area") for reader in readers.values())
    slots = (0, clip.num_tubelets // 2, clip.num_tubelets - 1) if reads_flow(config) else ()
    panels += len(slots)
    size = (_PANEL_INCHES * panels, (_PANEL_INCHES + 0.35) * len(chosen))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(chosen), panels, squeeze=False)
    for row, place in enumerate(chosen.tolist()):
        axes = iter(grid[row])
        for title, reader in readers.items():
            sample = _first_crop(config, reader, clip, place)
            image = sample.frames[0, :, clip.num_frames // 2].permute(1, 2, 0).numpy()
            if title == next(iter(readers)):
                _show(next(axes), image, reader.clip_ids[sample.clip])
            _draw_guidance(axes, title, image, sample, config, reader, clip)
        if slots:
            mask, _ = flow_masks_of(config, clip, [sample], torch.Generator().manual_seed(config.seed))
            for slot in slots:
                panel = next(axes)
                frame = sample.frames[0, :, slot * clip.tubelet_frames].permute(1, 2, 0).numpy()
                _show(panel, frame, f"along the flow: slot {slot + 1}")
                _darken(panel, mask.view(clip.num_tubelets, -1)[slot], clip)
    figure.savefig(path, dpi=100)


def _first_crop(config: PretrainConfig, reader: ClipReader, clip: ClipShape, place: int) -> Sample:
    clips = PretrainClips(
        reader,
        config.model,
        config.data,
        seed=config.seed,
        reads="flow" if reads_flow(config) else "nothing",
        patch_px=clip.patch_px,
    )
    whole = clips[SampleKey(0, place, place)]
    return Sample(whole.frames[:1], whole.boxes[:1], whole.areas[:1], whole.motion[:1], whole.clip)


def _draw_guidance(
    axes: Any,
    title: str,
    image: NDArray[np.uint8],
    sample: Sample,
    config: PretrainConfig,
    reader: ClipReader,
    clip: ClipShape,
) -> None:
    """Draw the areas, where these guide, and the mask of one sample."""
    side = clip.image_px // clip.patch_px
    generator = torch.Generator().manual_seed(config.seed)
    inside, mask = masks_of(config, reader.guidance, clip, [sample], generator)
    figures = rule_figures(inside, mask, config.mask.inside_ratio)
    if reader.guidance.kind == "area":
        heat = next(axes)
        _show(heat, image, f"{title}: strength")
        strength = sample.areas[0].float().mean(0).numpy()
        heat.imshow(strength, cmap="inferno", alpha=0.6, extent=_extent(clip), interpolation="nearest")
    panel = next(axes)
    shares = [float(value) for value in (figures.share_inside, figures.hidden_inside, figures.hidden_outside)]
    within, hidden_in, hidden_out = (f"{share:.0%}" if share == share else "none" for share in shares)
    _show(panel, image, f"{title}: inside {within}\nhidden in {hidden_in}, out {hidden_out}")
    _darken(panel, mask[0, : clip.num_patches], clip)
    _outline(panel, inside[0].view(side, side), clip)


def _darken(panel: Axes, hidden: Tensor, clip: ClipShape) -> None:
    """Cover the hidden patches of a slot, bool (P,)."""
    side = clip.image_px // clip.patch_px
    cover = np.zeros((side, side, 4))
    cover[..., :3], cover[..., 3] = _HIDDEN_COLOUR, hidden.view(side, side).numpy() * _HIDDEN_OPACITY
    panel.imshow(cover, extent=_extent(clip), interpolation="nearest")


def _show(panel: Axes, image: NDArray[np.uint8], title: str) -> None:
    panel.imshow(image)
    panel.set_title(title, fontsize=7)
    panel.set_axis_off()


def _extent(clip: ClipShape) -> tuple[float, float, float, float]:
    return (-0.5, clip.image_px - 0.5, clip.image_px - 0.5, -0.5)


def _outline(panel: Axes, inside: Tensor, clip: ClipShape) -> None:
    # A rim of nothing around it, so that patches at the border are outlined as well.
    cells = np.pad(inside.numpy(), 1).repeat(_OUTLINE_POINTS, 0).repeat(_OUTLINE_POINTS, 1)
    spots = (np.arange(len(cells)) + 0.5) * clip.patch_px / _OUTLINE_POINTS - clip.patch_px - 0.5
    if cells.any():
        panel.contour(spots, spots, cells, levels=[0.5], colors="lime", linewidths=1.0)
        panel.set_xlim(-1.5, clip.image_px + 0.5)
        panel.set_ylim(clip.image_px + 0.5, -1.5)
