"""Samples in a fixed order: what a step reads depends on (seed, epoch, position) and on nothing else.

The sampler (see `order`) hands out keys, so workers live on from epoch to epoch and nothing changes with the number of
workers or ranks: a global step always takes the same clips, crops and frames. A clip that cannot be read is replaced
by another one drawn from the same key; the others do not move.
"""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mofo_train.config import DataConfig, ModelConfig
from mofo_train.data.cache import ClipCache
from mofo_train.data.clips import dense_frames
from mofo_train.data.decode import ClipUnreadableError, decode_frames
from mofo_train.data.order import SampleKey
from mofo_train.data.transforms import crop_boxes, crop_frames, join_views, multi_scale_crop
from mofo_train.errors import DataError
from motionbox.errors import ClipError
from motionbox.motion.boxes import clip_box
from motionbox.store import Store

_MAX_SUBSTITUTES = 8
BoxUse = Literal["stored", "full_frame", "random"]


class ClipReader:
    """Reads chosen frames of a store's clips with their boxes.

    Attributes:
        clip_ids: The clips that can be used, in the store's order.
        labels: The store's table of these clips, label columns included.
        left_out: Clip id -> why, of the split's clips that the store has no boxes for.
    """

    def __init__(
        self,
        store: Store,
        data_root: Path,
        *,
        split: str | None,
        short_side_px: int,
        from_source: bool = False,
        boxes: BoxUse = "stored",
        min_confidence: float = 0.0,
        cache_gib: float = 0.0,
    ) -> None:
        """Choose the clips of a split that have boxes.

        Args:
            store: Boxes, frame times and, where made with `motionbox extract --clips`, the frames themselves.
            data_root: Folder of the source media, read for the clips whose frames the store does not keep.
            split: Only clips of this split; None = all.
            short_side_px: Larger videos are reduced to this short side.
            from_source: Read the source media even where the store keeps the frames, to compare the two.
            boxes: Which boxes to give, see `ClipsConfig`.
            min_confidence: Clips whose stored box is less certain take the full frame, so that masks are plain tube
                masks there and multi-cross attention attends to itself.
            cache_gib: Memory for decoded clips; 0 = decode every time.

        Raises:
            DataError: The store has no clip of that split with boxes.
        """
        table = store.clips()
        if split is not None:
            splits = table.column("split").to_pylist()
            if split not in splits:
                known = ", ".join(sorted({str(name) for name in splits}))
                raise DataError(f"split must be one of {known}, got {split!r}; store {store.path}")
            table = table.filter([own == split for own in splits])
        usable = [status != "failed" and bool(count) for status, count in _columns(table, "status", "num_frames")]
        if not any(usable):
            raise DataError(
                f"store {store.path} must have clips with boxes, got none of {len(usable)}; see `motionbox status`"
            )
        rows = zip(_columns(table, "clip_id", "reason"), usable, strict=True)
        self.left_out: dict[str, str] = {clip_id: reason for (clip_id, reason), ok in rows if not ok}
        self.labels = table.filter(usable)
        self.clip_ids: list[str] = self.labels.column("clip_id").to_pylist()
        self._store = store
        self._root = data_root
        self._from_source = from_source
        self._box_use = boxes
        self._min_confidence = min_confidence
        self._short_side_px = short_side_px
        self._cache = ClipCache(cache_gib)
        self._rows: list[tuple[Any, ...]] = list(_columns(self.labels, "path", "num_frames", "width", "height"))
        self._confidences: list[float] = self.labels.column("confidence").to_pylist()
        rates = "frame_fps" in self.labels.column_names
        self._rates: list[float | None] = self.labels.column("frame_fps").to_pylist() if rates else [None] * len(self)

    def __len__(self) -> int:
        return len(self.clip_ids)

    def content_id(self) -> str:
        """Return what the boxes and labels depend on: the run of the store and the clips that can be used."""
        names = hashlib.sha256("\n".join(self.clip_ids).encode()).hexdigest()
        return f"{self._store.run_id} {names}"

    def num_uncertain(self) -> int:
        """Return how many clips take the full frame because their boxes are less certain than asked for."""
        return sum(map(self._is_uncertain, range(len(self))))

    def remarks(self) -> str:
        """Say how many clips there are, and what stands in for boxes that are missing."""
        parts = [f"{len(self)} clips"]
        if self.left_out:
            parts.append(f"{len(self.left_out)} more have no boxes in the store and are left out")
        still = self.labels.column("status").to_pylist().count("no_motion")
        if still:
            parts.append(f"in {still} nothing moves, the centre stands in for their boxes")
        if self.num_uncertain():
            parts.append(f"{self.num_uncertain()} less certain than {self._min_confidence:g} take the full frame")
        return "; ".join(parts)

    def every_clip(self) -> pa.Table:
        """Return the store's whole table: every split, also the clips that cannot be used."""
        return self._store.clips()

    def subset(self, rows: NDArray[np.int64]) -> ClipReader:
        """Return a reader of some of the clips only, in the given order."""
        part = copy.copy(self)
        part.labels = self.labels.take(rows)
        part.clip_ids = [self.clip_ids[row] for row in rows]
        part._rows = [self._rows[row] for row in rows]
        part._rates = [self._rates[row] for row in rows]
        part._confidences = [self._confidences[row] for row in rows]
        return part

    def box_sources(self, index: int) -> NDArray[np.uint8]:
        """Return where each box of a clip comes from, uint8 (T,): values of `motionbox.motion.boxes.BoxSource`."""
        return np.asarray(self._store.frame_sources(self.clip_ids[index]))

    def num_frames(self, index: int) -> int:
        """Return how many frames the store knows of a clip."""
        return int(self._rows[index][1])

    def read(self, index: int, frames: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Read frames of a clip, from the store where it keeps them, else from the source media.

        Args:
            index: Place of the clip in `clip_ids`.
            frames: (T,) positions among the clip's frames, not decreasing.

        Returns:
            uint8 (T, h, w, 3) RGB and float32 (T, 4) xyxy boxes in the pixels of these frames.

        Raises:
            ClipUnreadableError: The clip cannot be decoded, or a box lies outside its frame.
        """
        _, _, width, height = self._rows[index]
        clip_id = self.clip_ids[index]
        pixels = self._cache.read(clip_id, frames, self.num_frames(index), lambda wanted: self._decode(index, wanted))
        boxes = self._boxes(index)[frames].astype(np.float32)
        limits = np.array([width, height, width, height], np.float32)
        if (
            (boxes < 0).any()
            or (boxes > limits).any()
            or abs(pixels.shape[2] * height - pixels.shape[1] * width) > max(width, height)
        ):
            raise ClipUnreadableError(
                f"clip {clip_id} must have boxes inside its {pixels.shape[2]}x{pixels.shape[1]} frames, got some "
                f"outside or frames that are not {width}x{height}; extract it again"
            )
        return pixels, boxes * np.array([pixels.shape[2], pixels.shape[1]] * 2, np.float32) / limits

    def _boxes(self, index: int) -> NDArray[np.int16]:
        """Return the boxes of all frames of a clip, int16 (T, 4) in display pixels, as the recipe wants them."""
        _, _, width, height = self._rows[index]
        clip_id = self.clip_ids[index]
        boxes = self._store.frame_boxes(clip_id)
        if self._box_use == "full_frame" or self._is_uncertain(index):
            boxes[:] = (0, 0, width, height)
        elif self._box_use == "random":
            around = clip_box(boxes)
            seed = int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:8])
            spare = np.maximum([width - around[2] + around[0], height - around[3] + around[1]], 0)
            place = np.random.default_rng(seed).integers(0, spare, endpoint=True)
            boxes += np.tile(place - around[:2], 2).astype(np.int16)
        return boxes

    def _is_uncertain(self, index: int) -> bool:
        return bool(self._box_use == "stored" and self._confidences[index] < self._min_confidence)

    def _decode(self, index: int, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        clip_id = self.clip_ids[index]
        if not self._from_source and self._store.has_clip(clip_id):
            try:
                return self._store.clip_frames(clip_id, frames, short_side_px=self._short_side_px)
            except ClipError as error:
                raise ClipUnreadableError(f"clip {clip_id}: {error}") from None
        times = self._store.frame_times(clip_id)[frames]
        path = self._root / self._rows[index][0]
        return decode_frames(path, times, short_side_px=self._short_side_px, frame_fps=self._rates[index])

    def sources(self) -> list[tuple[str, Path, NDArray[np.float64], float | None]]:
        """Return clip id, source path, times of all frames and frame rate of every clip."""
        return [
            (clip_id, self._root / row[0], self._store.frame_times(clip_id), rate)
            for clip_id, row, rate in zip(self.clip_ids, self._rows, self._rates, strict=True)
        ]

    def motion(self, index: int, frames: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the clip's mean motion map over the frames, float32 (h, w), of the whole frame, 0 to 255."""
        maps = self._store.motion_maps(self.clip_ids[index])[frames]
        return np.asarray(maps.mean(0), np.float32)


def _columns(table: Any, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


@dataclass
class Sample:
    """One decoded clip.

    Attributes:
        frames: uint8 (R, 3, T, S, S), R crops; see `transforms.join_views` for their order in memory.
        boxes: float32 (R, T, 4) xyxy in the crops' pixels; all zero where the crop misses the box.
        motion: float32 (R, P) mean motion of each patch, or an empty tensor where the mask does not need it.
        clip: Index of the clip that was read.
        bad: Clips tried before it and why they failed.
    """

    frames: Tensor
    boxes: Tensor
    motion: Tensor
    clip: int
    bad: list[tuple[str, str]] = field(default_factory=list)


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
            f"{_MAX_SUBSTITUTES} clips in a row must not be unreadable, got {bad[0][1]}; is --data-root the folder of "
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

    def _read(self, clip: int, rng: np.random.Generator, bad: list[tuple[str, str]]) -> Sample:
        model, data = self._model, self._data
        chosen = dense_frames(self._reader.num_frames(clip), model.num_frames, data.stride_frames, rng.random())
        pixels, boxes = self._reader.read(clip, chosen)
        source = torch.from_numpy(pixels)
        motion = torch.from_numpy(self._reader.motion(clip, chosen)) if self._with_motion else None
        frames, moved, weights = [], [], []
        for _ in range(data.crops_per_clip):
            crop = multi_scale_crop(pixels.shape[2], pixels.shape[1], model.image_px, data.crop_scales, rng)
            frames.append(crop_frames(source, crop, model.image_px)[None])
            moved.append(torch.from_numpy(crop_boxes(boxes, crop, model.image_px)))
            if motion is not None:
                weights.append(self._patch_motion(motion, crop, pixels.shape))
        return Sample(
            join_views(frames), torch.stack(moved), torch.stack(weights) if weights else torch.empty(0), clip, bad
        )

    def _patch_motion(self, motion: Tensor, crop: Any, shape: tuple[int, ...]) -> Tensor:
        """Average the motion map of the whole frame over the patches of a crop."""
        side = self._model.image_px // self._patch_px
        rows = (torch.arange(side * 4) + 0.5) / (side * 4) * crop.height + crop.y
        columns = (torch.arange(side * 4) + 0.5) / (side * 4) * crop.width + crop.x
        rows = (rows * motion.shape[0] / shape[1]).long().clamp(max=motion.shape[0] - 1)
        columns = (columns * motion.shape[1] / shape[2]).long().clamp(max=motion.shape[1] - 1)
        sampled = motion[rows[:, None], columns[None, :]]
        return sampled.reshape(side, 4, side, 4).mean((1, 3)).flatten()
