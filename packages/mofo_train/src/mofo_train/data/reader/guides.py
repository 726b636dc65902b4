"""What guides masks and attention: a clip's boxes, motion areas and flow, as a recipe wants them."""

from __future__ import annotations

import copy
import hashlib
import math
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from mofo_train.config import GuidanceConfig
from mofo_train.data.areas import TUBELET_FRAMES, FrameAreas, FrameFlow
from mofo_train.data.reader.chosen import ChosenClips
from mofo_train.errors import DataError
from motionbox.motion.boxes import clip_box
from motionbox.store import Store
from motionbox.video import working_size

BoxUse = Literal["stored", "full_frame", "random"]

_STRONGEST = 255  # of motion areas
_FLOW_SCALE = 4  # pixels of the working size on a side of a cell of flow


class ClipUnreadableError(DataError):
    """One clip cannot be decoded; training goes on without it."""


class Guides:
    """Boxes, areas and flow of chosen clips; kept in memory where their frames are.

    Attributes:
        guidance: Whose boxes, or areas, these are.
    """

    def __init__(
        self,
        store: Store,
        clips: ChosenClips,
        *,
        guidance: GuidanceConfig | None,
        boxes: BoxUse,
        min_confidence: float,
        cache_gib: float,
    ) -> None:
        """Take whose boxes or areas they are, and what stands in for them.

        Args:
            store: The store.
            clips: The clips.
            guidance: Whose boxes or areas; None = the store's motion boxes.
            boxes: Which boxes to give, see `ClipsConfig`.
            min_confidence: Clips whose stored box is less certain take the full frame, or no area.
            cache_gib: Above 0 boxes and areas are kept once read, and so much flow.

        Raises:
            DataError: The store has no such guidance.
            StoreError: Areas guide, and the store holds none.
        """
        self.guidance = guidance or GuidanceConfig()
        if self.guidance.source not in store.guidance_sources():
            known, wanted = ", ".join(store.guidance_sources()), self.guidance.source
            raise DataError(
                f"guidance.source must be one of {known}, got {wanted!r}; store {store.path}; "
                f"`motionbox import-boxes {store.path} --boxes F --name {wanted}` makes it"
            )
        self._store = store
        self._clips = clips
        self._box_use = boxes
        self._min_confidence = min_confidence
        self._in_memory = cache_gib > 0
        self._kept_areas: dict[str, NDArray[np.uint8]] = {}
        self._kept_boxes: dict[str, NDArray[np.int32]] = {}
        self._kept_steps: dict[str, NDArray[np.float16]] = {}
        self._room_for_steps = int(cache_gib * 2**30)
        self._cells_wh: dict[str, tuple[float, float]] = {}
        if self.guidance.kind == "area":
            self.areas(0, np.zeros(TUBELET_FRAMES, np.int64))  # a store without areas says so here

    def subset(self, clips: ChosenClips) -> Guides:
        """Return those of some of the clips."""
        part = copy.copy(self)
        part._clips = clips
        return part

    def num_uncertain(self) -> int:
        """Return how many clips take the full frame because their boxes are less certain than asked for."""
        return sum(map(self._is_uncertain, range(len(self._clips))))

    def boxes(self, index: int, frames: NDArray[np.int64], frame_wh: tuple[int, int]) -> NDArray[np.float32]:
        """Return the boxes of frames of a clip, float32 (T, 4) xyxy in pixels of frames of that width and height.

        Raises:
            ClipUnreadableError: A box lies outside its frame, or the frames have other proportions than the clip.
        """
        width, height = self._clips.sizes_wh[index]
        boxes = self._boxes(index)[frames]
        if (
            boxes.min() < 0
            or boxes[:, ::2].max() > width
            or boxes[:, 1::2].max() > height
            or abs(frame_wh[0] * height - frame_wh[1] * width) > max(width, height)
        ):
            raise ClipUnreadableError(
                f"clip {self._clips.ids[index]} must have boxes inside its {frame_wh[0]}x{frame_wh[1]} frames, got "
                f"some outside or frames that are not {width}x{height}; extract it again"
            )
        scaled = boxes.astype(np.float32)
        if frame_wh != (width, height):
            scaled *= np.array(frame_wh * 2, np.float32)
            scaled /= np.array((width, height) * 2, np.float32)
        return scaled

    def areas(self, index: int, frames: NDArray[np.int64]) -> FrameAreas | None:
        """Return the motion areas of frames of a clip, as the recipe wants them; None where boxes guide.

        Args:
            index: Place of the clip in `clip_ids`.
            frames: (T,) positions among the clip's frames.

        Raises:
            StoreError: The store holds none.
            DataError: They are of another number of frames, or of another grid than the clip's.
        """
        if self.guidance.kind == "box":
            return None
        clip_id, source = self._clips.ids[index], self.guidance.source
        cells_wh = self._cells_wh.get(clip_id) or self._store.frame_cells_wh(clip_id)
        self._cells_wh[clip_id] = cells_wh
        strength = self._stored_areas(clip_id, frames)
        # A clip of one frame has no flow, hence no grid.
        grid = (len(frames), *(math.ceil(cells) for cells in reversed(cells_wh)))
        strength = strength if strength.size else np.zeros(grid, np.uint8)
        if strength.shape != grid or strength.dtype != np.uint8:
            raise DataError(
                f"areas of guidance {source!r} must be uint8 {grid} for {len(frames)} frames of clip {clip_id}, got "
                f"{strength.dtype} {strength.shape}; store {self._store.path}; extract or import them again"
            )
        if self._is_uncertain(index):
            strength = np.zeros_like(strength)
        elif self._box_use == "full_frame":
            strength = np.full_like(strength, _STRONGEST)
        elif self._box_use == "random":
            shift = self._chance(index).integers(0, strength.shape[1:])
            strength = np.roll(strength, shift, axis=(1, 2))
        return FrameAreas(strength, cells_wh)

    def flow(self, index: int, frames: NDArray[np.int64]) -> FrameFlow:
        """Return the flow from each of some frames of a clip to the next, reduced to cells of 4 x 4 pixels.

        Zeros where the clip has no flow; from a frame to one that repeats it nothing moves.

        Args:
            index: Place of the clip in `clip_ids`.
            frames: (T,) positions among the clip's frames, not decreasing.

        Raises:
            StoreError: The store keeps no flow.
        """
        clip_id = self._clips.ids[index]
        first, count = int(frames[0]), self._clips.num_frames[index]
        passed = slice(first, min(int(frames[-1]) + 1, count))
        kept = self._kept_steps.get(clip_id)
        if kept is None and self._room_for_steps > 0:
            kept = self._steps(clip_id, slice(0, count))
            self._room_for_steps -= kept.nbytes
            if self._room_for_steps >= 0:
                self._kept_steps[clip_id] = kept
        steps = self._steps(clip_id, passed) if kept is None else kept[passed]
        width, height = working_size(*self._store.frame_size(clip_id), self._flow_settings[0])
        return FrameFlow(steps, frames - first, (width / _FLOW_SCALE, height / _FLOW_SCALE))

    def _boxes(self, index: int) -> NDArray[np.int32]:
        """Return the boxes of all frames of a clip, int32 (T, 4) in display pixels, as the recipe wants them."""
        width, height = self._clips.sizes_wh[index]
        clip_id = self._clips.ids[index]
        kept = self._kept_boxes.get(clip_id)
        if kept is not None:
            return kept
        boxes = self._store.frame_boxes(clip_id, source=self.guidance.source)
        if self.guidance.source != "motion":
            boxes[(boxes < 0).all(1)] = 0  # frames that it says nothing of: nothing is inside
        if self._in_memory:
            self._kept_boxes[clip_id] = boxes  # changed below where others are asked for
        if self._box_use == "full_frame" or self._is_uncertain(index):
            boxes[:] = (0, 0, width, height)
        elif self._box_use == "random":
            around = clip_box(boxes)
            spare = np.maximum([width - around[2] + around[0], height - around[3] + around[1]], 0)
            place = self._chance(index).integers(0, spare, endpoint=True)
            boxes += np.tile(place - around[:2], 2).astype(np.int32)
        return boxes

    @cached_property
    def _flow_settings(self) -> tuple[int, float | None]:
        """Return the short side of the stored flow, and `flow.step_seconds`."""
        config = self._store.config()
        return config.frames.short_side_px, config.flow.step_seconds

    def _steps(self, clip_id: str, passed: slice) -> NDArray[np.float16]:
        """Read the flow of frames side by side to the next of each, float16 (T, 2, h, w), in cells."""
        frames = np.arange(passed.start, passed.stop)
        flow = torch.from_numpy(self._store.flow(clip_id, frames)).movedim(3, 1)
        cells = F.avg_pool2d(flow, _FLOW_SCALE, ceil_mode=True).numpy() / _FLOW_SCALE
        times, step_seconds = self._store.frame_times(clip_id), self._flow_settings[1]
        if step_seconds is not None:  # the flow spans another time than that to the next frame
            gaps = np.diff(times, append=times[-1])[frames] / step_seconds
            cells = cells * gaps[:, None, None, None]
        repeats = (cells[:-1] == cells[1:]).all((1, 2, 3))  # the flow of both leads to the next frame that differs
        cells[:-1][repeats & (frames[1:] < len(times) - 1)] = 0
        return cells.astype(np.float16)

    def _stored_areas(self, clip_id: str, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the areas of frames of a clip as the store has them; read once where clips are kept in memory."""
        source = self.guidance.source
        if not self._in_memory:
            return self._store.motion_areas(clip_id, frames, source=source)
        if clip_id not in self._kept_areas:
            self._kept_areas[clip_id] = self._store.motion_areas(clip_id, source=source)
        whole = self._kept_areas[clip_id]
        return whole[frames] if whole.size else whole

    def _chance(self, index: int) -> np.random.Generator:
        """Return random numbers that are always the same for a clip."""
        digest = hashlib.sha256(self._clips.ids[index].encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8]))

    def _is_uncertain(self, index: int) -> bool:
        return bool(self._box_use == "stored" and self._clips.confidences[index] < self._min_confidence)
