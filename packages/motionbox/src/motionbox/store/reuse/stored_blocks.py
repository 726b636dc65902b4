"""Blocks of a committed unit, read back as they went in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from motionbox.config import ExtractConfig
from motionbox.errors import StoreError
from motionbox.storage import storage_of
from motionbox.storage.failpoints import failpoint
from motionbox.store.flow_form import CodedFlow, FlowCoder
from motionbox.store.layout import CLIPS_FILE, FLOW_DIRECTORY, MAPS_ARRAY, MAPS_DIRECTORY
from motionbox.store.reuse.sibling_units import StoredUnit
from motionbox.store.unit_arrays import UnitArrays
from motionbox.store.units import BlockResult, BlockRows, Piece
from motionbox.store.video_rows import VideoPart, read_parts
from motionbox.video.frames import VideoInfo, working_size


class StoredBlocks:
    """Reads blocks of a unit of another run: one at a time, each against its digest.

    Args:
        unit: The unit.
        config: That of the run that takes them over: the same but, maybe, for `store.clips`.

    Attributes:
        has_clips: Whether blocks come with the training clips of that run.
        num_read: Blocks that were read.

    Raises:
        OSError: The disk is broken.
    """

    def __init__(self, unit: StoredUnit, config: ExtractConfig) -> None:
        failpoint("rows.read")
        self._config = config
        self._directory = unit.paths.attempt(unit.unit_id, unit.attempt_id)
        self._arrays = UnitArrays([self._directory])
        self._coder = None if config.store.flow == "none" else FlowCoder(config.store.flow, config.store.flow_bound_px)
        self.has_clips = unit.has_clips
        self.num_read = 0
        try:
            self._parts = read_parts(self._directory, 0)
        except StoreError:  # damaged: nothing of it is known
            self._parts = {}

    def numbers(self, piece: Piece) -> list[int]:
        """Return the numbers of a piece's blocks, in order; none where its video is not known from end to end.

        A video with an error is not: it is tried again, as in a run of its own.
        """
        part = self._parts.get(piece.video_id)
        if part is None or any(row["reason"] for row in part.blocks):
            return []
        first, stop = piece.first_block, piece.stop_block
        numbers = (row["block"] for row in part.blocks)
        return [number for number in numbers if (first is None or number >= first) and (stop is None or number < stop)]

    def read(self, video_id: str, number: int) -> BlockRows | None:
        """Return a block, with its colour frames where `has_clips`; None where it is damaged.

        Args:
            video_id: The video.
            number: One of `numbers`.
        """
        part = self._parts[video_id]
        place = [row["block"] for row in part.blocks].index(number)
        row = part.blocks[place]
        begin = sum(before["num_frames"] for before in part.blocks[:place])
        try:
            info = VideoInfo(row["width"], row["height"], row["fps"], None, None, "", "", 0)
            result = self._result(part, slice(begin, begin + row["num_frames"]), row)
            clip = None if row["clip_bytes"] is None else self._clip(row)
            stored = BlockRows(video_id, number, info, result, clip, row["clip_error"] or "")
        except (ValueError, KeyError, RuntimeError, FileNotFoundError):  # what Zarr and its codecs make of damage
            return None
        if stored.digest() != row["digest"]:
            return None
        self.num_read += 1
        return stored if self.has_clips else replace(stored, clip=None, clip_error="")

    def _result(self, part: VideoPart, own: slice, row: dict[str, Any]) -> BlockResult:
        index = part.places[own, 1]
        first = int(index.min())  # a block's frames have flow all of them, or none has
        count = 0 if first < 0 else int(index.max()) + 1 - first
        return BlockResult(
            times=part.times[own],
            boxes=part.boxes[own],
            energy=part.energy[own],
            confidence=part.confidences[own],
            origin=part.origins[own],
            map_index=index - max(first, 0),
            maps=self._maps(first, count, row),
            flows=self._flows(first, count, row),
        )

    def _maps(self, first: int, count: int, row: dict[str, Any]) -> list[npt.NDArray[np.uint8]]:
        if count == 0 or not self._config.store.motion_maps:
            return []
        array = self._arrays.get(0, MAPS_DIRECTORY, MAPS_ARRAY)
        stored = np.asarray(array[first : first + count, : row["map_height"], : row["map_width"]])
        return [np.ascontiguousarray(entry) for entry in stored]

    def _flows(self, first: int, count: int, row: dict[str, Any]) -> list[CodedFlow]:
        if count == 0 or self._coder is None:
            return []
        width, height = working_size(row["width"], row["height"], self._config.frames.short_side_px)
        array = self._arrays.get(0, FLOW_DIRECTORY, f"{height}x{width}")
        return [self._coder.code_stored(np.asarray(array[number])) for number in range(first, first + count)]

    def _clip(self, row: dict[str, Any]) -> bytes:
        """Return the block's colour frames as the other run keeps them: its digest speaks of them, too."""
        if not row.get("clip_bytes"):
            return b""
        path = self._directory / CLIPS_FILE
        return storage_of(path).read_ranges(path, [(row["clip_offset"], row["clip_bytes"])])[0]
