"""Test a classifier: several views of every clip, logits averaged, figures by each data set's own rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mofo_train.data.labels import LabelSpace, group_flags
from mofo_train.data.reader import ClipReader
from mofo_train.data.transforms import normalise
from mofo_train.data.views import FixedBatches, ViewedClip, ViewedClips, create_view_loader
from mofo_train.evaluation.predictions import Predictions, merge_predictions
from mofo_train.finetune_config import ClassifierConfig, FinetuneDataConfig, ViewsConfig
from mofo_train.guidance.inside import inside_tokens
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.runtime.ranks import Ranks
from motionbox.motion.boxes import BoxSource


@dataclass(frozen=True)
class ClassifiedClips:
    """What a test gave.

    Attributes:
        predictions: Those of the clips that could be read, of all ranks.
        unreadable: Clip id -> why, of the others.
        num_without_box: ClassifiedClips clips in which no frame has a box of its own motion: the centre half stands in.
    """

    predictions: Predictions
    unreadable: dict[str, str]
    num_without_box: int


@torch.no_grad()
def classify_clips(
    model: nn.Module,
    space: LabelSpace,
    reader: ClipReader,
    views: ViewsConfig,
    ranks: Ranks,
    *,
    shape: ClassifierConfig,
    data: FinetuneDataConfig,
    dtype: torch.dtype = torch.float32,
) -> ClassifiedClips:
    """Classify every clip of a reader.

    Batches are the same whatever the number of ranks, and no clip is padded or counted twice.

    Args:
        model: `(frames, inside=tokens inside) -> logits`; put into evaluation mode for the time being.
        space: What the logits mean.
        reader: The clips.
        views: How many views, and how many clips at once.
        ranks: This process among all; all return the same.
        shape: Frames of a view and their size.
        data: How frames are chosen.
        dtype: Number format of the forward pass.
    """
    batches = FixedBatches(len(reader), views.batch_clips, rank=ranks.rank, world_size=ranks.world_size)
    on_device = reader.leaves_views_to(ranks.device.type, data.convert_on)
    clips = ViewedClips(reader, shape, data, views, on_device=on_device)
    loader = create_view_loader(clips, batches, num_workers=data.num_workers)
    clip_shape = ClipShape(shape.num_frames, shape.image_px, shape.patch_px)
    rows, logits, unreadable = [], [], {}
    with _evaluating(model):
        for batch in loader:
            good = [clip for clip in batch if not clip.problem]
            unreadable.update({reader.clip_ids[clip.clip]: clip.problem for clip in batch if clip.problem})
            if good:
                rows += [clip.clip for clip in good]
                inside = partial(inside_tokens, clip_shape, max_share=reader.guidance.max_share)
                logits.append(_mean_logits(model, good, inside, ranks.device, dtype))
    chosen = np.array(rows, np.int64)
    scores = np.concatenate(logits) if logits else np.zeros((0, space.num_outputs), np.float32)
    table = reader.labels.take(chosen)
    part = Predictions(
        tuple(table.column("clip_id").to_pylist()),
        {head: values.numpy() for head, values in space.split(torch.from_numpy(scores)).items()},
        space.labels(table),
        group_flags(table),
    )
    centred = sum(bool((reader.box_sources(row) == BoxSource.CENTRE).all()) for row in rows)
    parts = ranks.gather((part, unreadable, centred))
    return ClassifiedClips(
        merge_predictions([own for own, _, _ in parts]),
        {clip_id: reason for _, bad, _ in parts for clip_id, reason in bad.items()},
        sum(count for _, _, count in parts),
    )


def _mean_logits(
    model: nn.Module,
    clips: list[ViewedClip],
    inside: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    dtype: torch.dtype,
) -> NDArray[np.float32]:
    """Average the logits of each clip's views, float32 (clips, outputs)."""
    frames = normalise(torch.cat([clip.frames_on(device) for clip in clips]))
    boxes, areas = (torch.cat([getattr(clip, name) for clip in clips]).to(device) for name in ("boxes", "areas"))
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        logits: Tensor = model(frames, inside=inside(boxes, areas))
    averaged = logits.double().reshape(len(clips), -1, logits.shape[1]).mean(1)
    return averaged.float().cpu().numpy()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
