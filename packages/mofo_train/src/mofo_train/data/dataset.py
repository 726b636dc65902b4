"""Samples in a fixed order: what a step reads depends on (seed, epoch, position) and on nothing else.

The sampler hands out keys, so workers live on from epoch to epoch and nothing changes with the number of
workers or ranks: a global step always takes the same clips, crops and frames. A clip that cannot be read is replaced
by another one drawn from the same key; the others do not move.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mofo_train.config import DataConfig, ModelConfig
from mofo_train.data.areas import FrameAreas, crop_map
from mofo_train.data.augment import augment_clip, draw_augmentation
from mofo_train.data.crops.uncut import Uncut, add_noise, crop_window, most_noise_bytes, plane_bytes, window_wh
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

MotionRead = Literal["nothing", "maps", "flow"]
"""What of a clip's motion the kind of mask reads."""
Draft = Callable[[Tensor], "Sample"]
"""A drawn sample: reads its clip into uint8 (room_bytes,); ClipUnreadableError when that cannot be decoded."""
_MAX_SUBSTITUTES = 8
_NOTHING = torch.empty(0)


@dataclass
class Sample:
    """One decoded clip.

    Attributes:
        frames: uint8 (R, 3, T, S, S), R crops; see `transforms.join_views` for their order in memory.
        boxes: float32 (R, T, 4) xyxy in the crops' pixels; all zero where the crop misses the box.
        areas: uint8 (R, slots, side, side) strength of the motion area in each tubelet, or empty where boxes guide.
        motion: What the mask reads: float32 (R, P), mean motion of each patch; float16 (R, T - 1, 2, g, g), flow, see
            `areas.FrameFlow.on_points`; or an empty tensor.
        clip: Index of the clip that was read.
        bad: Clips tried before it and why they failed.
        uncut: The views that the device is to make of a clip; `frames` is uint8 (room_bytes,) then and holds it.
    """

    frames: Tensor
    boxes: Tensor
    areas: Tensor
    motion: Tensor
    clip: int
    bad: list[tuple[str, str]] = field(default_factory=list)
    uncut: Uncut | None = None


class TrainingClips(Dataset[Sample], ABC):
    """Map from `SampleKey` to `Sample`; the randomness of a sample is seeded by its key.

    Attributes:
        room_bytes: What a sample's clip may take where its views are left to the device; 0 where they are not.
    """

    def __init__(self, reader: ClipReader, *, seed: int) -> None:
        self._reader = reader
        self._seed = seed
        self.room_bytes = 0

    def __getitem__(self, key: SampleKey) -> Sample:
        return self.read(key, None)

    def read(self, key: SampleKey, memory: Tensor | None) -> Sample:
        """Return the sample of a key, or of a clip drawn from it while clips cannot be read.

        Args:
            key: Which one.
            memory: uint8 (room_bytes,) for the clip where its views are left to the device; None: new memory.

        Raises:
            DataError: Too many clips in a row cannot be read.
        """
        if memory is None and self.room_bytes:
            memory = torch.empty(self.room_bytes, dtype=torch.uint8)
        bad: list[tuple[str, str]] = []
        clip = key.clip
        for attempt in range(_MAX_SUBSTITUTES):
            rng = self._chance(key, attempt)
            if attempt:
                clip = int(rng.integers(len(self._reader)))
            try:
                sample = self._read(clip, rng) if memory is None else self._draft(clip, rng)(memory)
                sample.bad = bad
                return sample
            except ClipUnreadableError as error:
                bad.append((self._reader.clip_ids[clip], str(error)))
        raise DataError(
            f"{_MAX_SUBSTITUTES} clips in a row cannot be read; the first: {bad[0][1]}; is --data-root the folder of "
            "the videos?"
        )

    def read_into(self, keys: list[SampleKey], memory: Tensor) -> Iterator[Sample]:
        """Return the samples of keys as `read` does, each clip in a row of uint8 (keys, room_bytes).

        What is drawn is drawn for all of them first: between two clips a processor has forgotten how, and takes several
        times as long.
        """
        return map(self._finish, keys, list(map(self._begin, keys)), memory)

    def _begin(self, key: SampleKey) -> Draft | None:
        try:
            return self._draft(key.clip, self._chance(key, 0))
        except ClipUnreadableError:
            return None

    def _finish(self, key: SampleKey, draft: Draft | None, memory: Tensor) -> Sample:
        if draft is not None:
            with suppress(ClipUnreadableError):
                return draft(memory)
        return self.read(key, memory)

    def _chance(self, key: SampleKey, attempt: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, key.epoch, key.position, attempt))

    def read_ahead(self, keys: list[SampleKey], *, keep: int) -> None:
        """Begin to fetch the clips of a batch where the store lies in a bucket, see `ClipReader.read_ahead`."""
        self._reader.read_ahead(((key.clip, self._frames_ahead(key)) for key in keys), keep=keep)

    def _frames_ahead(self, key: SampleKey) -> NDArray[np.int64] | None:  # noqa: ARG002
        """Return the frames that the sample of a key will read; None: any of them."""
        return None

    def __getitems__(self, keys: list[SampleKey]) -> Samples:
        """Return the samples of a batch, each read when its turn comes."""
        return Samples(self, keys)

    @abstractmethod
    def _read(self, clip: int, rng: np.random.Generator) -> Sample:
        """Make the sample of a clip; ClipUnreadableError when it cannot be decoded."""

    @abstractmethod
    def _draft(self, clip: int, rng: np.random.Generator) -> Draft:
        """Draw the sample of a clip whose views are left to the device."""


@dataclass(frozen=True)
class Samples:
    """Samples of a batch that are read one by one, so that only the one at hand is in memory."""

    clips: TrainingClips
    keys: list[SampleKey]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.clips.__getitem__, self.keys)

    def read_into(self, memory: Tensor) -> Iterator[Sample]:
        """Read the samples into uint8 (samples, clips.room_bytes)."""
        return self.clips.read_into(self.keys, memory)


class PretrainClips(TrainingClips):
    """Dense frames and multi-scale crops, for masked pretraining."""

    def __init__(
        self,
        reader: ClipReader,
        model: ModelConfig,
        data: DataConfig,
        *,
        seed: int,
        reads: MotionRead = "nothing",
        patch_px: int,
        on_device: bool = False,
    ) -> None:
        super().__init__(reader, seed=seed)
        self._model = model
        self._data = data
        self._reads = reads
        if reads == "flow":
            reader.flow(0, np.zeros(2, np.int64))  # a store without flow says so here
        self._patch_px = patch_px
        # Several crops would need the whole frame between them; clips in memory are kept whole.
        self._cuts = data.crops_per_clip == 1 and not reader.in_memory
        if on_device:
            parts = map(window_wh, reader.stored_sizes()) if self._cuts else reader.stored_sizes()
            self.room_bytes = max(map(plane_bytes, parts)) * model.num_frames

    def without_frames(self, key: SampleKey) -> Sample:
        """Return the sample of a key as it is while its clip can be read, without reading it: `frames` are empty."""
        rng = self._chance(key, 0)
        chosen, frame_wh = self._choose(key.clip, rng), self._reader.frame_wh(key.clip)
        boxes = self._reader.boxes(key.clip, chosen, frame_wh)
        return self._place(key.clip, chosen, boxes, self._crops(frame_wh, rng), frame_wh)

    def _read(self, clip: int, rng: np.random.Generator) -> Sample:
        chosen, side = self._choose(clip, rng), self._model.image_px
        pixels, boxes = self._reader.read(clip, chosen)
        frame_wh = pixels.shape[2], pixels.shape[1]
        crops = self._crops(frame_wh, rng)
        frames = [crop_frames(torch.from_numpy(pixels), crop, side)[None] for crop in crops]
        sample = self._place(clip, chosen, boxes, crops, frame_wh)
        sample.frames = join_views(frames)
        return sample

    def _draft(self, clip: int, rng: np.random.Generator) -> Draft:
        chosen, frame_wh = self._choose(clip, rng), self._reader.stored_wh(clip)
        crops = self._crops(frame_wh, rng)
        window = crop_window(crops[0], frame_wh) if self._cuts else None
        left, top, *_ = window or (0, 0)
        cut = tuple(Crop(crop.x - left, crop.y - top, crop.width, crop.height) for crop in crops)
        sample = self._place(clip, chosen, self._reader.boxes(clip, chosen, frame_wh), crops, frame_wh)

        def read(memory: Tensor) -> Sample:
            planes = self._reader.read_planes(clip, chosen, memory.numpy(), window)
            sample.frames, sample.uncut = memory, Uncut(planes.shape, frame_wh, self._model.image_px, crops=cut)
            return sample

        return read

    def _frames_ahead(self, key: SampleKey) -> NDArray[np.int64]:
        return self._choose(key.clip, self._chance(key, 0))

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
        moved = torch.from_numpy(np.stack([crop_boxes(boxes, crop, side) for crop in crops]))
        strength = self._strength(areas, crops, frame_wh)
        return Sample(_NOTHING, moved, _stack(strength), self._motion(clip, chosen, crops, frame_wh), clip)

    def _strength(self, areas: FrameAreas | None, crops: list[Crop], frame_wh: tuple[int, int]) -> list[Tensor]:
        side, patch_px = self._model.image_px, self._patch_px
        return [areas.on_tubelets(frame_wh, crop_map(crop, side), side, patch_px) for crop in crops] if areas else []

    def _motion(self, clip: int, chosen: NDArray[np.int64], crops: list[Crop], frame_wh: tuple[int, int]) -> Tensor:
        """Return what the mask reads of a clip's motion, see `Sample.motion`."""
        if self._reads == "maps":
            motion = torch.from_numpy(self._reader.motion(clip, chosen))
            return _stack([self._patch_motion(motion, crop, frame_wh) for crop in crops])
        if self._reads == "flow":
            flow, side = self._reader.flow(clip, chosen), self._model.image_px
            return _stack([flow.on_points(frame_wh, crop_map(crop, side), side, self._patch_px) for crop in crops])
        return _NOTHING

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

    def __init__(self, reader: ClipReader, config: FinetuneConfig, *, on_device: bool = False) -> None:
        super().__init__(reader, seed=config.seed)
        self._config = config
        if on_device:
            length, side = config.model.num_frames, config.model.image_px
            noise = most_noise_bytes(length, side) * config.data.crops_per_clip
            planes = max(map(plane_bytes, reader.stored_sizes())) * length
            self.room_bytes = planes + noise * (config.augment.erase_probability > 0)

    def _read(self, clip: int, rng: np.random.Generator) -> Sample:
        chosen, image_px = self._choose(clip, rng), self._config.model.image_px
        pixels, boxes = self._reader.read(clip, chosen)
        frames, moved, maps = [], [], []
        for _ in range(self._config.data.crops_per_clip):
            view, placed, to_source = augment_clip(pixels, boxes, self._config.augment, image_px, rng)
            frames.append(view[None])
            moved.append(placed)
            maps.append(to_source)
        return self._place(clip, chosen, join_views(frames), moved, maps, (pixels.shape[2], pixels.shape[1]))

    def _draft(self, clip: int, rng: np.random.Generator) -> Draft:
        return partial(self._read_planes, clip, rng)  # its noise is too large to be drawn for a whole batch

    def _read_planes(self, clip: int, rng: np.random.Generator, memory: Tensor) -> Sample:
        chosen, image_px = self._choose(clip, rng), self._config.model.image_px
        frame_wh = self._reader.stored_wh(clip)
        planes = self._reader.read_planes(clip, chosen, memory.numpy())
        boxes = self._reader.boxes(clip, chosen, frame_wh)
        augmentations, moved, maps = [], [], []
        for _ in range(self._config.data.crops_per_clip):
            drawn, placed, to_source = draw_augmentation(frame_wh, boxes, self._config.augment, image_px, rng)
            augmentations.append(drawn)
            moved.append(placed)
            maps.append(to_source)
        uncut = Uncut(planes.shape, frame_wh, image_px, augmentations=tuple(augmentations))
        sample = self._place(clip, chosen, memory, moved, maps, frame_wh)
        sample.uncut = add_noise(memory, uncut)
        return sample

    def _choose(self, clip: int, rng: np.random.Generator) -> NDArray[np.int64]:
        data, length, count = self._config.data, self._config.model.num_frames, self._reader.num_frames(clip)
        if data.sampling == "dense":
            return dense_frames(count, length, data.stride_frames, rng.random())
        return segment_frames(count, length, rng.random(length))

    def _place(
        self,
        clip: int,
        chosen: NDArray[np.int64],
        frames: Tensor,
        moved: list[Tensor],
        maps: list[NDArray[np.float64]],
        frame_wh: tuple[int, int],
    ) -> Sample:
        """Return a sample of frames, with boxes and areas of its views."""
        areas = self._reader.areas(clip, chosen)
        side, patch_px = self._config.model.image_px, self._config.model.patch_px
        strength = [areas.on_tubelets(frame_wh, way, side, patch_px) for way in maps] if areas else []
        return Sample(frames, torch.stack(moved), _stack(strength), _NOTHING, clip)


def _stack(views: list[Tensor]) -> Tensor:
    return torch.stack(views) if views else _NOTHING
