"""Clips of a store with their motion boxes as a plain PyTorch data set, for training loops of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mofo_train.data.reader import ClipReader
from mofo_train.data.sources import find_media
from mofo_train.data.transforms import Crop, crop_boxes, crop_frames, multi_scale_crop, normalise, segment_frames
from motionbox.storage import StorePath
from motionbox.store import Store, open_store

_SHORT_SIDE_SHARE = 8 / 7  # as 256 to 224: what a video is reduced to while decoding
_CROP_SCALES = (1.0, 0.875, 0.75, 0.66)
# What a store's table says beside the labels of its data set.
_NOT_LABELS = {
    *("clip_id", "video_id", "start_seconds", "stop_seconds", "num_frames", "width", "height", "fps", "status"),
    *("reason", "x1", "y1", "x2", "y2", "path", "start_frame", "stop_frame", "frame_fps", "confidence"),
}


class MotionClips(Dataset[dict[str, Any]]):
    """Map-style data set of a store's clips: frames of one size, and the motion box of each in their pixels.

    `torch.utils.data.DataLoader` takes it as it is. Clips that the store has no boxes for are left out.

    Attributes:
        clip_ids: The clips, in the store's order.
    """

    def __init__(
        self,
        store: Store | StorePath | str,
        num_frames: int = 16,
        image_px: int = 224,
        *,
        split: str | None = None,
        augment: bool = False,
        data_root: Path | str | None = None,
    ) -> None:
        """Choose clips.

        Args:
            store: A store of `motionbox extract`, or its path or URL.
            num_frames: Frames of a clip, one of each of so many equal parts of its time.
            image_px: Height and width of the frames given.
            split: Only clips of this split; None = all.
            augment: False: the middle frame of each part, the square in the middle. True, for training: a random frame
                of each part and a random square (VideoMAE's multi-scale crop), drawn from PyTorch's random numbers.
            data_root: Folder of the videos; None = the one that the store was made from. A store with frames
                (`motionbox extract --clips`) needs none.

        Raises:
            StoreError: There is no such store.
            DataError: It has no clip of that split with boxes, or its videos are missing.
            ValueError: No frames, or no pixels.
        """
        for name, value in (("num_frames", num_frames), ("image_px", image_px)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        boxes = store if isinstance(store, Store) else open_store(store)
        root = find_media(boxes, None if data_root is None else Path(data_root))
        self._reader = ClipReader(boxes, root, split=split, short_side_px=round(image_px * _SHORT_SIDE_SHARE))
        self._num_frames, self._image_px, self._augment = num_frames, image_px, augment
        self.clip_ids = self._reader.clip_ids
        table = self._reader.labels
        self._labels = {
            name: [_collatable(value, table.schema.field(name).type) for value in table.column(name).to_pylist()]
            for name in table.column_names
            if name not in _NOT_LABELS
        }

    def __len__(self) -> int:
        return len(self.clip_ids)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Read a loader's batch; where the store lies in a bucket, all of its clips are under way before the first."""
        self._reader.read_ahead((index % len(self), None) for index in indices)
        return [self[index] for index in indices]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read a clip.

        Returns:
            `frames` float32 (3, T, S, S) RGB, normalised with ImageNet's mean and standard deviation; `boxes` float32
            (T, 4) xyxy in the pixels of these frames, all zero where the crop misses the box; `clip_id`; `labels`, the
            label columns of the store by name (whole numbers -1 and texts empty where unknown).

        Raises:
            ClipUnreadableError: The clip cannot be decoded; names it.
            IndexError: There is no such clip.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be in [0, {len(self)}), got {index}")
        index %= len(self)
        rng = np.random.default_rng(int(torch.randint(2**62, ()))) if self._augment else None
        jitter = None if rng is None else rng.random(self._num_frames)
        chosen = segment_frames(self._reader.num_frames(index), self._num_frames, jitter)
        pixels, boxes = self._reader.read(index, chosen)
        height, width = pixels.shape[1:3]
        if rng is None:
            side = min(height, width)
            crop = Crop((width - side) // 2, (height - side) // 2, side, side)
        else:
            crop = multi_scale_crop(width, height, self._image_px, _CROP_SCALES, rng)
        frames = crop_frames(torch.from_numpy(pixels), crop, self._image_px)
        return {
            "frames": normalise(frames[None])[0],
            "boxes": torch.from_numpy(crop_boxes(boxes, crop, self._image_px)),
            "clip_id": self.clip_ids[index],
            "labels": {name: values[index] for name, values in self._labels.items()},
        }


def _collatable(value: Any, kind: Any) -> Any:
    """Return a label without nulls, which no loader can put in a batch."""
    if value is not None:
        return value
    return {"int": -1, "bool": False, "double": float("nan"), "float": float("nan")}.get(
        str(kind).rstrip("0123456789"), ""
    )
