"""Where a classifier looks: Grad-CAM of a block, attention rollout, and how much of it is inside the box or the area.

A saliency map has one non-negative value per token. Grad-CAM (Selvaraju et al. 2017): the tokens that a block returns,
weighted by the mean gradient of the score for each channel, negative sums cut off. Rollout (Abnar and Zuidema 2020):
the product over the blocks of the attention, mean over heads, averaged with the identity for the residual path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mofo_train.data.labels import LabelSpace
from mofo_train.data.sources import open_clips
from mofo_train.data.transforms import normalise
from mofo_train.data.views import FixedBatches, ViewedClip, ViewedClips, create_view_loader
from mofo_train.errors import CheckpointError, DataError
from mofo_train.evaluation.run import load_classifier, load_identity
from mofo_train.guidance.inside import inside_tokens
from mofo_train.models import Classifier
from mofo_train.models.vit import Attention, Encoder
from motionbox.storage import StorePath

Method = Literal["gradcam", "rollout"]


def grad_cam(model: Classifier, frames: Tensor, inside: Tensor, block: int, space: LabelSpace) -> Tensor:
    """Compute Grad-CAM for the classes that the model prefers, through whatever fusion it has.

    Args:
        model: The classifier, in evaluation mode.
        frames: float (B, 3, T, H, W), normalised.
        inside: bool (B, num_tokens).
        block: Which of the encoder's blocks, from 1 (the paper shows the fifth).
        space: The heads; the best score of each is summed.

    Returns:
        float32 (B, num_tokens), >= 0, in token order.

    Raises:
        ValueError: The encoder has no such block.
    """
    blocks = model.encoder.blocks
    if not 1 <= block <= len(blocks):
        raise ValueError(f"block must be 1 to {len(blocks)}, got {block!r}")
    kept: list[Tensor] = []

    def keep(_: Any, __: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    handle = blocks[block - 1].register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(frames, inside=inside)
            score = sum((scores.amax(1).sum() for scores in space.split(logits).values()), logits.new_zeros(()))
            (gradient,) = torch.autograd.grad(score, kept)
    finally:
        handle.remove()
    weights = gradient.mean(1, keepdim=True)
    return (kept[0].detach() * weights).sum(2).relu().float()


def attention_of(layer: Attention, x: Tensor) -> Tensor:
    """Return the attention of a layer for its input (B, N, dim), mean over heads: (B, N, N), rows summing to 1."""
    bias = torch.cat([layer.q_bias, torch.zeros_like(layer.v_bias)])
    pair = torch.nn.functional.linear(x, layer.qkv.weight[: 2 * x.shape[2]], bias)
    query, key = pair.unflatten(2, (2, layer.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # type: ignore[no-untyped-call]
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return cast(Tensor, scores.float().softmax(-1).mean(1))


@torch.no_grad()
def attention_rollout(model: Classifier, frames: Tensor, inside: Tensor) -> Tensor:
    """Compute how much each input token reaches the tokens that the fusion averages.

    These are all tokens for a fusion that asks for none, and those inside for the others (all where none is
    inside).

    Args:
        model: The classifier, in evaluation mode.
        frames: float (B, 3, T, H, W), normalised.
        inside: bool (B, num_tokens).

    Returns:
        float32 (B, num_tokens), rows summing to 1.
    """
    everywhere = torch.ones_like(inside)
    rows = inside.where(inside.any(1, keepdim=True), everywhere) if model.pooling.reads_inside else everywhere
    reach = (rows / rows.sum(1, keepdim=True)).float()[:, None]
    attentions: list[Tensor] = []
    with _inputs_of_attention(model.encoder, attentions):
        model(frames, inside=inside)
    # From the last block to the first, a row vector at a time: never a product of two N x N matrices.
    for attention in reversed(attentions):
        reach = (reach + reach @ attention) / 2
    return reach.squeeze(1)


@contextmanager
def _inputs_of_attention(encoder: Encoder, into: list[Tensor]) -> Iterator[None]:
    def keep(layer: Any, arguments: tuple[Any, ...]) -> None:
        into.append(attention_of(layer, arguments[0]))

    handles = [cast(Any, block).attn.register_forward_pre_hook(keep) for block in encoder.blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def share_inside(saliency: Tensor, inside: Tensor) -> Tensor:
    """Return each clip's share of saliency (B, N) >= 0 on inside tokens, bool (B, N); NaN where it is all zero."""
    return (saliency * inside).sum(1) / saliency.sum(1)


@dataclass(frozen=True)
class ClipSaliency:
    """One model's saliency of one clip.

    Attributes:
        clip_id: The clip.
        saliency: float32 (tubelets, side, side), largest value 1.
        share: Share of it inside; NaN for an empty map.
        area_share: Share of the tokens inside: what a map without preference would give.
        inside: bool (tubelets, side, side), which tokens are.
        frames: uint8 (T, S, S, 3), what the model saw.
        boxes: float32 (T, 4) xyxy pixels of these frames.
    """

    clip_id: str
    saliency: NDArray[np.float32]
    share: float
    area_share: float
    inside: NDArray[np.bool_]
    frames: NDArray[np.uint8]
    boxes: NDArray[np.float32]


def saliency_of_clips(
    model: Classifier,
    space: LabelSpace,
    clips: ViewedClips,
    clip_ids: list[str],
    *,
    method: Method,
    block: int,
    batch_clips: int,
    num_workers: int,
    device: torch.device,
    max_share: float = 0.4,
) -> Iterator[ClipSaliency]:
    """Compute the saliency of every clip that can be read, first view only.

    Args:
        model: The classifier; put into evaluation mode.
        space: Its heads.
        clips: The clips.
        clip_ids: Their ids.
        method: `gradcam` or `rollout`.
        block: Block of Grad-CAM, from 1.
        batch_clips: Clips at once.
        num_workers: Decoding processes.
        device: Where to compute.
        max_share: As in `inside_tokens`.
    """
    model.to(device).eval()
    side = model.clip.image_px // model.clip.patch_px
    for batch in create_view_loader(clips, FixedBatches(len(clip_ids), batch_clips), num_workers=num_workers):
        good: list[ViewedClip] = [clip for clip in batch if not clip.problem]
        if not good:
            continue
        pixels = torch.stack([clip.frames[0] for clip in good]).to(device)
        boxes, areas = (
            torch.stack([getattr(clip, name)[:1] for clip in good]).flatten(0, 1).to(device)
            for name in ("boxes", "areas")
        )
        inside = inside_tokens(model.clip, boxes, areas, max_share=max_share)
        frames = normalise(pixels)
        if method == "gradcam":
            maps = grad_cam(model, frames, inside, block, space)
        else:
            maps = attention_rollout(model, frames, inside)
        shares = share_inside(maps, inside).tolist()
        shape = (model.clip.num_tubelets, side, side)
        scaled = maps / maps.amax(1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
        for row, clip in enumerate(good):
            yield ClipSaliency(
                clip_ids[clip.clip],
                scaled[row].reshape(shape).cpu().numpy(),
                shares[row],
                float(inside[row].float().mean()),
                inside[row].reshape(shape).cpu().numpy(),
                pixels[row].permute(1, 2, 3, 0).cpu().numpy(),
                boxes[row].cpu().numpy(),
            )


_INSIDE = "inside"
_OUTLINE = 4  # points a side of each patch, so that its outline is nearly square


def draw_saliency(columns: dict[str, ClipSaliency], path: Path, num_frames: int = 4) -> None:
    """Draw one clip: frames with what is inside outlined, then each model's saliency over them.

    Args:
        columns: Title -> the same clip's saliency by one model.
        path: The picture.
        num_frames: Rows, spread over the clip.
    """
    from matplotlib.figure import Figure

    first = next(iter(columns.values()))
    length = len(first.frames)
    chosen = np.linspace(0, length - 1, min(num_frames, length)).round().astype(int)
    figure = Figure(figsize=(2.2 * (1 + len(columns)), 2.2 * len(chosen)), layout="constrained")
    grid = figure.subplots(len(chosen), 1 + len(columns), squeeze=False)
    for row, frame in enumerate(chosen):
        for panel, (title, shown) in zip(grid[row], {_INSIDE: first, **columns}.items(), strict=True):
            panel.imshow(shown.frames[frame])
            slot, side = frame * len(shown.saliency) // length, shown.frames.shape[1]
            if title != _INSIDE:
                panel.imshow(
                    shown.saliency[slot],
                    cmap="inferno",
                    vmin=0,
                    vmax=1,
                    alpha=0.55,
                    extent=(-0.5, side - 0.5, side - 0.5, -0.5),
                    interpolation="bilinear",
                )
            within = shown.inside[slot].repeat(_OUTLINE, 0).repeat(_OUTLINE, 1)
            spots = (np.arange(len(within)) + 0.5) * side / len(within) - 0.5
            if within.any() and not within.all():
                panel.contour(spots, spots, within, levels=[0.5], colors="lime", linewidths=1.2)
            panel.set_axis_off()
            if row == 0:
                label = title if title == _INSIDE else f"{title}\n{shown.share:.0%} inside"
                panel.set_title(label, fontsize=8)
    figure.suptitle(f"{first.clip_id} (inside: {first.area_share:.0%} of the tokens)", fontsize=9)
    figure.savefig(path, dpi=120)


_PAPER_BLOCK = 5


def saliency_of_checkpoint(
    checkpoint: Path,
    device: torch.device,
    *,
    method: Method,
    block: int | None,
    limit: int | None,
    store: StorePath | None,
    data_root: Path | None,
) -> Iterator[ClipSaliency]:
    """Compute a finetuned checkpoint's saliency of its test split, the middle view of each clip.

    Args:
        checkpoint: Folder of a finetuning's checkpoint.
        device: Where to compute.
        method: `gradcam` or `rollout`.
        block: Block of Grad-CAM, from 1; None = the fifth, or the last of fewer.
        limit: Only so many clips; None = all.
        store: As for `evaluate_checkpoint`.
        data_root: As for `evaluate_checkpoint`.

    Raises:
        CheckpointError: No such checkpoint, or an attentive probe, which knows no box.
        DataError: The store is missing, of another data set or other classes, or there is no such block.
    """
    config, space = load_identity(checkpoint, None, ())
    reader = open_clips(config.data, store, data_root, guidance=config.guidance, test_split=config.test.split)
    reader = reader.subset(np.arange(min(limit or len(reader), len(reader))))
    model, known = load_classifier(checkpoint, config, space, reader)
    if not isinstance(model, Classifier):
        raise CheckpointError(f"checkpoint {checkpoint} must be a classifier with a fusion, got an attentive probe")
    depth = len(model.encoder.blocks)
    if block is not None and block > depth:
        raise DataError(f"block must be 1 to {depth} for {config.model.name}, got {block}")
    views = config.test.model_copy(update={"segments": 1, "crops": 1})
    return saliency_of_clips(
        model,
        known,
        ViewedClips(reader, config.model, config.data, views),
        reader.clip_ids,
        method=method,
        block=block or min(_PAPER_BLOCK, depth),
        batch_clips=views.batch_clips,
        num_workers=config.data.num_workers,
        device=device,
        max_share=config.guidance.max_share,
    )
