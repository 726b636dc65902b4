"""What a recipe's masks will do on a store's clips: boxes and areas side by side, measured without reading a frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mofo_train.config import GuidanceConfig, PretrainConfig
from mofo_train.data.dataset import MotionRead, PretrainClips, Sample
from mofo_train.data.reader import ClipReader
from mofo_train.data.sampler import SampleKey
from mofo_train.guidance.inside import inside_tubes
from mofo_train.guidance.mask_kinds import MASKS, draw_mask
from mofo_train.guidance.masks import motion_tube_mask
from mofo_train.guidance.rule import RuleFigures, rule_figures
from mofo_train.guidance.tubelets import ClipShape

_BATCH = 256


@dataclass(frozen=True)
class GuidanceFigures:
    """What masks of one guidance do on the samples of a split.

    Attributes:
        split: The split; empty: all clips.
        kind: `box` or `area`.
        source: Whose, see `GuidanceConfig`.
        clips: Clips of the split.
        samples: Crops looked at.
        unguided: Share of them with nothing inside: a plain tube mask.
        share_inside_mean: Share of a crop's patches inside, mean over all samples.
        share_inside_median: The same, median.
        rule_holds: Share of the samples with anything inside that can hide the wanted shares of all tubes and of those
            inside; None where nothing is inside anywhere.
        hidden_inside: Share of the inside tubes hidden, mean over the samples that have any.
        hidden_outside: Share of the outside tubes hidden, likewise.
    """

    split: str
    kind: str
    source: str
    clips: int
    samples: int
    unguided: float
    share_inside_mean: float
    share_inside_median: float
    rule_holds: float | None
    hidden_inside: float | None
    hidden_outside: float | None

    def as_row(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def inspect_guidance(
    config: PretrainConfig, reader: ClipReader, guidance: GuidanceConfig, *, split: str, num_samples: int
) -> GuidanceFigures:
    """Draw the first samples of a pretraining and their masks, and measure them.

    Samples are those of the recipe's seed, clip after clip, the same for every guidance. Masks are those of MOFO with
    the recipe's ratios, whatever its `mask.kind` is.

    Args:
        config: The recipe.
        reader: The clips, opened with `guidance`.
        guidance: What says who is inside.
        split: What to call the clips.
        num_samples: How many clips to sample; each gives `data.crops_per_clip` crops.

    Raises:
        ClipUnreadableError: A clip's boxes lie outside its frames.
    """
    clip = shape_of(config)
    generator = torch.Generator().manual_seed(config.seed)
    found = []
    for samples in _batches(samples_of(config, reader, num_samples)):
        inside, mask = masks_of(config, guidance, clip, samples, generator)
        found.append(rule_figures(inside, mask, config.mask.inside_ratio))
    joined = [torch.cat([getattr(figures, name) for figures in found]) for name in RuleFigures.__dataclass_fields__]
    every = RuleFigures(*joined)
    return GuidanceFigures(
        split=split,
        kind=guidance.kind,
        source=guidance.source,
        clips=len(reader),
        samples=len(every.guided),
        unguided=1 - float(every.guided.float().mean()),
        share_inside_mean=float(every.share_inside.mean()),
        share_inside_median=float(every.share_inside.quantile(0.5)),
        rule_holds=_mean(every.holds[every.guided].float()),
        hidden_inside=_mean(every.hidden_inside[every.guided]),
        hidden_outside=_mean(every.hidden_outside[~every.hidden_outside.isnan()]),
    )


@dataclass(frozen=True)
class FlowFigures:
    """What masks that follow the flow (`mask.kind = "flow_tube"`) do on the samples of a split.

    Attributes:
        split: The split; empty: all clips.
        samples: Crops looked at.
        without_flow: Share of them in which nothing moves: a plain tube mask.
        hidden: Share of all tubelets hidden; the same in every slot of every sample.
        followed: Share of the visible tubelets, the middle slot's left out, that lie elsewhere than in the middle slot,
            where a straight tube would be.
    """

    split: str
    samples: int
    without_flow: float
    hidden: float
    followed: float

    def as_row(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def inspect_flow(config: PretrainConfig, reader: ClipReader, *, split: str, num_samples: int) -> FlowFigures:
    """Draw the masks of the first samples of a pretraining along their flow, and measure them.

    Args:
        config: The recipe, with a kind of mask that reads flow.
        reader: The clips.
        split: What to call the clips.
        num_samples: How many clips to sample; each gives `data.crops_per_clip` crops.

    Raises:
        StoreError: The store keeps no flow.
    """
    clip = shape_of(config)
    generator = torch.Generator().manual_seed(config.seed)
    still, hidden, followed = [], [], []
    for samples in _batches(samples_of(config, reader, num_samples)):
        mask, flow = flow_masks_of(config, clip, samples, generator)
        by_slot = mask.view(len(mask), clip.num_tubelets, -1)
        straight = by_slot[:, clip.num_frames // 2 // clip.tubelet_frames, None]
        others = clip.num_tubelets - 1
        still.append((flow == 0).flatten(1).all(1))
        hidden.append(mask.float().mean(1))
        followed.append((~by_slot & straight).sum((1, 2)) / ((~straight).sum((1, 2)) * max(others, 1)))
    return FlowFigures(
        split=split,
        samples=sum(map(len, still)),
        without_flow=float(torch.cat(still).float().mean()),
        hidden=float(torch.cat(hidden).mean()),
        followed=float(torch.cat(followed).mean()),
    )


def reads_flow(config: PretrainConfig) -> bool:
    """Say whether a recipe's masks follow the flow."""
    return MASKS[config.mask.kind].reads == "flow"


def flow_masks_of(
    config: PretrainConfig, clip: ClipShape, samples: Sequence[Sample], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the masks of samples along their flow, bool (B, num_tokens), and that flow, `Sample.motion`."""
    flow = torch.cat([sample.motion for sample in samples])
    inside = torch.zeros(len(flow), clip.num_patches, dtype=torch.bool)
    return draw_mask(config.mask, clip, inside, flow, generator), flow


def shape_of(config: PretrainConfig) -> ClipShape:
    """Return the shape of a recipe's clips."""
    return ClipShape(config.model.num_frames, config.model.image_px, config.model.patch_px)


def samples_of(config: PretrainConfig, reader: ClipReader, num_samples: int) -> Iterator[Sample]:
    """Yield samples without frames, clip after clip, every clip equally often."""
    patch_px = shape_of(config).patch_px
    reads: MotionRead = "flow" if reads_flow(config) else "nothing"
    clips = PretrainClips(reader, config.model, config.data, seed=config.seed, reads=reads, patch_px=patch_px)
    for place in range(num_samples):
        yield clips.without_frames(SampleKey(0, place, place % len(reader)))


def masks_of(
    config: PretrainConfig,
    guidance: GuidanceConfig,
    clip: ClipShape,
    samples: Sequence[Sample],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return which tubes of samples are inside, bool (B, P), and their masks, bool (B, num_tokens)."""
    boxes, areas = (torch.cat([getattr(sample, name) for sample in samples]) for name in ("boxes", "areas"))
    inside = inside_tubes(clip, boxes, areas, max_share=guidance.max_share, generator=generator)
    mask = motion_tube_mask(
        inside,
        clip.num_tubelets,
        mask_ratio=config.mask.mask_ratio,
        inside_ratio=config.mask.inside_ratio,
        generator=generator,
    )
    return inside, mask


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    ahead = iter(samples)
    while batch := list(islice(ahead, _BATCH)):
        yield batch


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
