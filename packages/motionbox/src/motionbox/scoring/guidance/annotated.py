"""Annotated boxes and masks -> a named guidance of a store: a box and an area for every frame of an annotated clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from motionbox.errors import InputError
from motionbox.motion import boxes as bx
from motionbox.scoring.annotations import AnnotatedVideo
from motionbox.scoring.marks import Marks, Truth, clips_of_truths, grid_of, marks_of, nearest_marks
from motionbox.store import Store
from motionbox.store.areas.blocks import BLOCK_FRAMES, Areas
from motionbox.store.writing.guidance_writer import GuidanceWriter


@dataclass
class Imported:
    """What became of annotations.

    Attributes:
        clips: Clips of the store that have them now.
        num_frames: Frames of these clips.
        num_filled: Frames among them without an annotation of their own; they take the nearest one.
        unknown: Annotated clips or videos that the store lacks.
        empty: Annotated clips without a box in any frame, or that failed in the store.
        num_without: Clips of the store with frames but without annotation.
    """

    clips: list[str] = field(default_factory=list)
    num_frames: int = 0
    num_filled: int = 0
    unknown: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    num_without: int = 0

    def notes(self) -> list[str]:
        """Return what a user should know, a line each."""
        lines = []
        if self.num_filled:
            lines.append(f"{self.num_filled:,} of {self.num_frames:,} frames are not annotated; the nearest one counts")
        if self.unknown:
            lines.append(f"{len(self.unknown):,} annotated, but not in the store: {_some(self.unknown)}")
        if self.empty:
            lines.append(f"{len(self.empty):,} without a box in any frame, or failed in the store: {_some(self.empty)}")
        if self.num_without:
            lines.append(f"{self.num_without:,} clips of the store are not annotated: they have no area")
        return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def import_truths(store: Store, truths: Sequence[Truth], writer: GuidanceWriter, *, fps: float | None) -> Imported:
    """Write the boxes and areas of annotated clips.

    Args:
        store: The store.
        truths: Annotated clips and videos, boxes in display pixels or masks.
        writer: Writes the guidance.
        fps: Rate of the annotated frames; None: each clip's own, EPIC's official rate for videos.

    Raises:
        InputError: Not one clip of the store is annotated, or frames of another size are.
    """
    clips, find = store.clips(), clips_of_truths(store)
    result = Imported()
    for truth in truths:
        found = find(truth)
        if not found:
            result.unknown.append(truth.video_id if isinstance(truth, AnnotatedVideo) else truth.clip_id)
        for row in found:
            _import_clip(store, row, truth, writer, fps, result)
    if not result.clips:
        names = sorted(clips.column("clip_id").to_pylist())
        raise InputError(
            f"the boxes must annotate at least one clip of store {store.path}, got none; its clip ids begin with "
            f"{_some(names) or 'nothing'}, the annotated ones with {_some(sorted(result.unknown)) or 'nothing'}"
        )
    result.num_without = int(np.count_nonzero(clips.column("num_frames").to_numpy())) - len(result.clips)
    return result


def _import_clip(
    store: Store, row: dict[str, Any], truth: Truth, writer: GuidanceWriter, fps: float | None, result: Imported
) -> None:
    clip_id = str(row["clip_id"])
    if clip_id in result.clips:
        raise InputError(f"clip {clip_id!r} must be annotated once, got it twice; leave one of the files out")
    times, nearest = store.frame_times(clip_id), None
    if len(times):
        grid = grid_of(store, clip_id)
        marks = marks_of(truth, row, times, fps, grid)
        nearest = nearest_marks(marks, times)
    if nearest is None:
        result.empty.append(clip_id)
        return
    numbers, num_filled = nearest
    writer.add(clip_id, _whole_pixels(marks.boxes, grid.frame_wh)[numbers], _areas(marks, numbers))
    result.clips.append(clip_id)
    result.num_frames += len(times)
    result.num_filled += num_filled


def _whole_pixels(boxes: npt.NDArray[np.float64], frame_wh: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Round boxes outwards and cut them at the frame's border; one that lies outside becomes -1."""
    rounded = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    inside = bx.clip_to_frame(rounded, *frame_wh)
    return np.where(bx.has_box(boxes)[:, None] & bx.has_box(inside)[:, None], inside, -1).astype(np.int32)


def _areas(marks: Marks, numbers: npt.NDArray[np.int64]) -> Iterator[Areas]:
    """Yield the areas of a clip's frames, block by block; each annotated frame is looked at once, or once a block."""
    for first in range(0, len(numbers), BLOCK_FRAMES):
        own, places = np.unique(numbers[first : first + BLOCK_FRAMES], return_inverse=True)
        yield np.stack([marks.areas(int(number)) for number in own])[places]
