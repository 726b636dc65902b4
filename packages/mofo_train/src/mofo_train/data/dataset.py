"""Samples in a fixed order: what a step reads depends on (seed, epoch, position) and on nothing else.

The sampler hands out keys, so workers live on from epoch to epoch and nothing changes with the number of
workers or ranks: a global step always takes the same clips, crops and frames. A clip that cannot be read is replaced
by another one drawn from the same key; the others do not move.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mofo_train.config import DataConfig, ModelConfig
from mofo_train.data.areas import crop_map
from mofo_train.data.augment import augment_clip
from mofo_train.data.reader import ClipReader, ClipUnreadableError
from mofo_train.data.sampler import SampleKey
from mofo_train.data.transforms import (
    Crop,
    crop_boxes,
    crop_frames,
    dense_frames,
    join_views,
    multi_scale_crop,
    segment_frames,
)
from mofo_train.errors import DataError
from mofo_train.finetune_config import FinetuneConfig

_MAX_SUBSTITUTES = 8


@dataclass(frozen=True)
class Uncut:
    """A clip whose crops the device is to make of its planes.

    Attributes:
        shape: T, h * 3 / 2 and w of the planes, see `Store.clip_planes`.
        crops: R crops, in their pixels.
        out_px: Side of the model's frames.
        room_bytes: Bytes of the largest clip.
    """

    shape: tuple[int, ...]
    crops: tuple[Crop, ...]
    out_px: int
    room_bytes: int


@dataclass
class Sample:
    """One decoded clip.

    Attributes:
        frames: uint8 (R, 3, T, S, S), R crops; see `transforms.join_views` for their order in memory.
        boxes: float32 (R, T, 4) xyxy in the crops' pixels; all zero where the crop misses the box.
        areas: uint8 (R, slots, side, side) strength of the motion area in each tubelet, or empty where boxes guide.
        motion: float32 (R, P) mean motion of each patch, or an empty tensor where the mask does not need it.
        clip: Index of the clip that was read.
        bad: Clips tried before it and why they failed.
        uncut: The crops that the device is to make; `frames` holds the clip's planes then, uint8 (T, h * 3 / 2, w).
    """

    frames: Tensor
    boxes: Tensor
    areas: Tensor
    motion: Tensor
    clip: int
    bad: list[tuple[str, str]] = field(default_factory=list)
    uncut: Uncut | None = None


class TrainingClips(Dataset[Sample], ABC):
    """Map from `SampleKey` to `Sample`; the randomness of a sample is seeded by its key."""

    def __init__(self, reader: ClipReader, *, seed: int) -> None:
        self._reader = reader
        self._seed = seed

    def __getitem__(self, key: SampleKey) -> Sample:
        bad: list[tuple[str, str]] = []
        clip = key.clip
        for attempt in range(_MAX_SUBSTITUTES):
            rng = np.random.default_rng((self._seed, key.epoch, key.position, attempt))
            if attempt:
                clip = int(rng.integers(len(self._reader)))
            try:
                return self._read(clip, rng, bad)
            except ClipUnreadableError as error:
                bad.append((self._reader.clip_ids[clip], str(error)))
        raise DataError(
            f"{_MAX_SUBSTITUTES} clips in a row cannot be read; the first: {bad[0][1]}; is --data-root the folder of "
            "the videos?"
        )

    def __getitems__(self, keys: list[SampleKey]) -> Samples:
        """Return the samples of a batch, each read when its turn comes."""
        return Samples(self, keys)

    @abstractmethod
    def _read(self, clip: int, rng: np.random.Generator, bad: list[tuple[str, str]]) -> Sample:
        """Make the sample of a clip; ClipUnreadableError when it cannot be decoded."""


@dataclass(frozen=True)
class Samples:
    """Samples of a batch that are read one by one, so that only the one at hand is in memory."""

    clips: TrainingClips
    keys: list[SampleKey]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.clips.__getitem__, self.keys)


class PretrainClips(TrainingClips):
    """Dense frames and multi-scale crops, for masked pretraining."""

    def __init__(
        self, reader: ClipReader, model: ModelConfig, data: DataConfig, *, seed: int, with_motion: bool, patch_px: int
    ) -> None:
        super().__init__(reader, seed=seed)
        self._model = model
        self._data = data
        self._with_motion = with_motion
        self._patch_px = patch_px
        self._room_bytes = reader.most_plane_bytes() * model.num_frames if data.convert_on == "device" else 0

    def without_frames(self, key: SampleKey) -> Sample:
        """Return the sample of a key as it is while its clip can be read, without reading it: `frames` are empty."""
        rng = np.random.default_rng((self._seed, key.epoch, key.position, 0))
        chosen, frame_wh = self._choose(key.clip, rng), self._reader.frame_wh(key.clip)
        boxes = self._reader.boxes(key.clip, chosen, frame_wh)
        return self._place(key.clip, chosen, boxes, self._crops(frame_wh, rng), frame_wh)

    def _read(self, clip: int, rng: np.random.Generator, bad: list[tuple[str, str]]) -> Sample:
        chosen, side = self._choose(clip, rng), self._model.image_px
        if self._room_bytes:
            planes, boxes, frame_wh = self._reader.read_planes(clip, chosen)
            crops = self._crops(frame_wh, rng)
            uncut = Uncut(planes.shape, tuple(crops), side, self._room_bytes)
            sample = self._place(clip, chosen, boxes, crops, frame_wh)
            return replace(sample, frames=torch.from_numpy(planes), bad=bad, uncut=uncut)
        pixels, boxes = self._reader.read(clip, chosen)
        frame_wh = pixels.shape[2], pixels.shape[1]
        crops = self._crops(frame_wh, rng)
        frames = [crop_frames(torch.from_numpy(pixels), crop, side)[None] for crop in crops]
        return replace(self._place(clip, chosen, boxes, crops, frame_wh), frames=join_views(frames), bad=bad)

    def _choose(self, clip: int, rng: np.random.Generator) -> NDArray[np.int64]:
        count, data = self._reader.num_frames(clip), self._data
        return dense_frames(count, self._model.num_frames, data.stride_frames, rng.random())

    def _crops(self, frame_wh: tuple[int, int], rng: np.random.Generator) -> list[Crop]:
        width, height = frame_wh
        side, scales = self._model.image_px, self._data.crop_scales
        return [multi_scale_crop(width, height, side, scales, rng) for _ in range(self._data.crops_per_clip)]

    def _place(
        self,
        clip: int,
        chosen: NDArray[np.int64],
        boxes: NDArray[np.float32],
        crops: list[Crop],
        frame_wh: tuple[int, int],
    ) -> Sample:
        """Return a sample with everything but its frames."""
        side = self._model.image_px
        areas = self._reader.areas(clip, chosen)
        motion = torch.from_numpy(self._reader.motion(clip, chosen)) if self._with_motion else None
        moved = [torch.from_numpy(crop_boxes(boxes, crop, side)) for crop in crops]
        strength = [areas.on_tubelets(frame_wh, crop_map(crop, side), side) for crop in crops] if areas else []
        weights = [self._patch_motion(motion, crop, frame_wh) for crop in crops] if motion is not None else []
        return Sample(torch.empty(0), torch.stack(moved), _stack(strength), _stack(weights), clip)

    def _patch_motion(self, motion: Tensor, crop: Crop, frame_wh: tuple[int, int]) -> Tensor:
        """Average the motion map of the whole frame over the patches of a crop."""
        side = self._model.image_px // self._patch_px
        rows = (torch.arange(side * 4) + 0.5) / (side * 4) * crop.height + crop.y
        columns = (torch.arange(side * 4) + 0.5) / (side * 4) * crop.width + crop.x
        rows = (rows * motion.shape[0] / frame_wh[1]).long().clamp(max=motion.shape[0] - 1)
        columns = (columns * motion.shape[1] / frame_wh[0]).long().clamp(max=motion.shape[1] - 1)
        sampled = motion[rows[:, None], columns[None, :]]
        return sampled.reshape(side, 4, side, 4).mean((1, 3)).flatten()


class FinetuneClips(TrainingClips):
    """Sampled frames and augmented views, for finetuning."""

    def __init__(self, reader: ClipReader, config: FinetuneConfig) -> None:
        super().__init__(reader, seed=config.seed)
        self._config = config

    def _read(self, clip: int, rng: np.random.Generator, bad: list[tuple[str, str]]) -> Sample:
        config, length = self._config, self._config.model.num_frames
        count = self._reader.num_frames(clip)
        if config.data.sampling == "dense":
            chosen = dense_frames(count, length, config.data.stride_frames, rng.random())
        else:
            chosen = segment_frames(count, length, rng.random(length))
        pixels, boxes = self._reader.read(clip, chosen)
        areas = self._reader.areas(clip, chosen)
        image_px = config.model.image_px
        frames, moved, strength = [], [], []
        for _ in range(config.data.crops_per_clip):
            view, placed, to_source = augment_clip(pixels, boxes, config.augment, image_px, rng)
            frames.append(view[None])
            moved.append(placed)
            if areas is not None:
                strength.append(areas.on_tubelets((pixels.shape[2], pixels.shape[1]), to_source, image_px))
        return Sample(join_views(frames), torch.stack(moved), _stack(strength), torch.empty(0), clip, bad)


def _stack(views: list[Tensor]) -> Tensor:
    return torch.stack(views) if views else torch.empty(0)
