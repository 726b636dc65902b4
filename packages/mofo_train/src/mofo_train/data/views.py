"""Views of test clips: segments in time times crops in space, boxes moved along."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mofo_train.data.areas import crop_map
from mofo_train.data.crops.uncut import Uncut, make_views
from mofo_train.data.loader import create_worker_loader, shared
from mofo_train.data.reader import ClipReader, ClipUnreadableError
from mofo_train.data.transforms import Crop, crop_boxes, crop_frames, dense_frames, segment_frames
from mofo_train.finetune_config import ClassifierConfig, FinetuneDataConfig, ViewsConfig

_END = 1 - 1e-9


@dataclass(frozen=True)
class ViewedClip:
    """A test clip, all its views.

    Attributes:
        clip: Index of the clip in its reader.
        frames: uint8 (V, 3, T, S, S), see `frames_on`; V = 0 where the clip cannot be read.
        boxes: float32 (V, T, 4) xyxy pixels of these frames.
        areas: uint8 (V, slots, side, side), the motion areas in their tubelets, or empty where boxes guide.
        problem: Why it cannot be read, or empty.
        uncut: The crops that the device is to make; `frames` is uint8 (1, bytes) then: the planes of the frames that
            any view needs.
        rows: Which of these frames each view in time has.
    """

    clip: int
    frames: Tensor
    boxes: Tensor
    areas: Tensor
    problem: str = ""
    uncut: Uncut | None = None
    rows: tuple[NDArray[np.intp], ...] = ()

    def frames_on(self, device: torch.device) -> Tensor:
        """Return the views on a device, uint8 (V, 3, T, S, S), those of one crop side by side."""
        frames = self.frames.to(device)
        if self.uncut is None:
            return frames
        crops = make_views(frames, [self.uncut])
        return torch.stack([crop[:, rows] for crop in crops for rows in self.rows])


def view_frames(num_frames: int, clip_frames: int, segments: int, stride: int | None) -> list[NDArray[np.int64]]:
    """Choose the frames of each view in time.

    Args:
        num_frames: Frames of the clip.
        clip_frames: Frames of a view.
        segments: Views.
        stride: Distance of the frames of dense views, spread evenly from the clip's beginning to its end (one view:
            its middle); None = one frame of each of `clip_frames` parts, at a different place of the part in each view
            (one view: the middle; two, as in VideoMAE: the beginning and the middle).

    Returns:
        `segments` arrays, int64 (clip_frames,).
    """
    if stride is None:
        places = [0.5] if segments == 1 else [view / segments for view in range(segments)]
        return [segment_frames(num_frames, clip_frames, np.full(clip_frames, place)) for place in places]
    spots = [0.5] if segments == 1 else [view / (segments - 1) for view in range(segments)]
    return [dense_frames(num_frames, clip_frames, stride, min(spot, _END)) for spot in spots]


def view_crops(width: int, height: int, crops: int) -> list[Crop]:
    """Place square crops of the short side evenly along the long side; one crop lies in the middle."""
    short, spare = min(width, height), abs(width - height)
    places = [0.5] if crops == 1 else [view / (crops - 1) for view in range(crops)]
    offsets = [round(place * spare) for place in places]
    return [Crop(o, 0, short, short) if width >= height else Crop(0, o, short, short) for o in offsets]


class ViewedClips(Dataset[ViewedClip]):
    """All views of each clip of a reader; a clip that cannot be read says why instead of raising."""

    def __init__(
        self,
        reader: ClipReader,
        model: ClassifierConfig,
        data: FinetuneDataConfig,
        views: ViewsConfig,
        *,
        on_device: bool = False,
    ) -> None:
        self._reader = reader
        self._model = model
        self._stride = data.stride_frames if data.sampling == "dense" else None
        self._views = views
        self._on_device = on_device

    def __len__(self) -> int:
        return len(self._reader)

    def __getitems__(self, clips: list[int]) -> list[ViewedClip]:
        """Return a batch."""
        return [self[clip] for clip in clips]

    def read_ahead(self, clips: list[int], *, keep: int) -> None:
        """Begin to fetch the clips of a batch where the store lies in a bucket, see `ClipReader.read_ahead`."""
        self._reader.read_ahead(((clip, self._wanted(self._in_time(clip))) for clip in clips), keep=keep)

    @staticmethod
    def _wanted(in_time: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Return the frames that any view needs."""
        return np.unique(np.concatenate(in_time))

    def _in_time(self, clip: int) -> list[NDArray[np.int64]]:
        """Return the frames of each view in time."""
        num_frames = self._reader.num_frames(clip)
        return view_frames(num_frames, self._model.num_frames, self._views.segments, self._stride)

    def __getitem__(self, clip: int) -> ViewedClip:
        side, length = self._model.image_px, self._model.num_frames
        in_time = self._in_time(clip)
        wanted = self._wanted(in_time)
        nothing = torch.empty(0, dtype=torch.uint8)
        try:
            if self._on_device:
                pixels = self._reader.read_planes(clip, wanted)
                width, height = self._reader.stored_wh(clip)
                boxes = self._reader.boxes(clip, wanted, (width, height))
            else:
                pixels, boxes = self._reader.read(clip, wanted)
                height, width = pixels.shape[1:3]
        except ClipUnreadableError as error:
            return ViewedClip(
                clip, nothing.view(0, 3, length, side, side), torch.empty(0, length, 4), nothing, str(error)
            )
        areas = [self._reader.areas(clip, chosen) for chosen in in_time]
        rows = [np.searchsorted(wanted, chosen) for chosen in in_time]
        crops = view_crops(width, height, self._views.crops)
        moved, strength, patch = [], [], self._model.patch_px
        for crop in crops:
            placed = crop_boxes(boxes, crop, side)
            moved += [torch.from_numpy(placed[own]) for own in rows]
            strength += [g.on_tubelets((width, height), crop_map(crop, side), side, patch) for g in areas if g]
        found = ViewedClip(clip, nothing, torch.stack(moved), torch.stack(strength) if strength else nothing)
        if self._on_device:
            uncut = Uncut(pixels.shape, (width, height), side, crops=tuple(crops))
            return replace(found, frames=torch.from_numpy(pixels).view(1, -1), uncut=uncut, rows=tuple(rows))
        views = [crop_frames(torch.from_numpy(pixels), crop, side) for crop in crops]
        return replace(found, frames=torch.stack([view[:, own] for view in views for own in rows]))


class FixedBatches(Sampler[list[int]]):
    """Batches of clips in a fixed order, dealt out to the ranks whole: what is in a batch does not depend on them."""

    def __init__(self, num_clips: int, batch_clips: int, *, rank: int = 0, world_size: int = 1) -> None:
        starts = range(rank * batch_clips, num_clips, batch_clips * world_size)
        self._batches = [list(range(start, min(start + batch_clips, num_clips))) for start in starts]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)


def create_view_loader(clips: ViewedClips, batches: FixedBatches, *, num_workers: int) -> DataLoader[ViewedClip]:
    """Create the loader; a batch is a list of `ViewedClip`."""
    return create_worker_loader(clips, batches, _in_shared_memory, num_workers=num_workers)


def _in_shared_memory(clips: list[ViewedClip]) -> list[ViewedClip]:
    return [
        replace(clip, frames=shared(clip.frames), boxes=shared(clip.boxes), areas=shared(clip.areas)) for clip in clips
    ]
