"""Reads chosen frames of a store's clips, from the store or from the videos, with what guides masks there."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mofo_train.config import FoldsConfig, GuidanceConfig
from mofo_train.data.areas import FrameAreas, FrameFlow
from mofo_train.data.reader.cache import ClipCache, Pixels
from mofo_train.data.reader.chosen import choose_clips
from mofo_train.data.reader.guides import BoxUse, ClipUnreadableError, Guides
from mofo_train.errors import DataError
from motionbox.errors import ClipError, Reason
from motionbox.store import Store
from motionbox.store.clip_blocks import SHORT_SIDE_PX, padded
from motionbox.video import read_frames_at, working_size


class ClipReader:
    """Reads chosen frames of a store's clips with their boxes, and with their motion areas where these guide.

    Attributes:
        clips: The clips that can be used.
        guidance: Whose boxes, or areas, these are.
        in_memory: Whether decoded clips are kept.
    """

    def __init__(
        self,
        store: Store,
        data_root: Path,
        *,
        split: str | None,
        short_side_px: int,
        as_listed: bool = True,
        folds: FoldsConfig | None = None,
        from_source: bool = False,
        boxes: BoxUse = "stored",
        min_confidence: float = 0.0,
        guidance: GuidanceConfig | None = None,
        cache_gib: float = 0.0,
        cache: ClipCache | None = None,
    ) -> None:
        """Choose the clips of a split that have boxes.

        Args:
            store: Boxes, frame times and, where made with `motionbox extract --clips`, the frames themselves.
            data_root: Folder of the source media, read for the clips whose frames the store does not keep.
            split: Only clips of this split, under whatever of its usual names the store has it; None = all.
            short_side_px: Larger videos are reduced to this short side.
            as_listed: False: make splits although the store names some, see `labels.splits_of`.
            folds: Deal the clips to these folds, see `labels.splits_of`.
            from_source: Read the source media even where the store keeps the frames, to compare the two.
            boxes: Which boxes to give, see `ClipsConfig`.
            min_confidence: Clips whose stored box is less certain take the full frame, or no area, so that masks are
                plain tube masks there and multi-cross attention attends to itself.
            guidance: Whose boxes or areas; None = the store's motion boxes.
            cache_gib: Memory for decoded clips, and as much for flow where masks read it; 0 = decode every time.
            cache: That of another reader of the same videos at the same size, to share it; None = its own.

        Raises:
            DataError: The store has no clip of that split with boxes, or no such guidance.
            StoreError: Areas guide, and the store holds none.
        """
        self.clips = choose_clips(store, split, as_listed=as_listed, folds=folds)
        self._guides = Guides(
            store, self.clips, guidance=guidance, boxes=boxes, min_confidence=min_confidence, cache_gib=cache_gib
        )
        self.guidance = self._guides.guidance
        self.in_memory = cache_gib > 0
        self._store = store
        self._root = data_root
        self._from_source = from_source
        self._short_side_px = short_side_px
        self._min_confidence = min_confidence
        self._cache = cache or ClipCache(cache_gib)

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def clip_ids(self) -> list[str]:
        """Return the ids of the clips, in the store's order."""
        return self.clips.ids

    @property
    def labels(self) -> pa.Table:
        """Return the store's table of the clips, label columns included."""
        return self.clips.labels

    def content_id(self) -> str:
        """Return what the boxes and labels depend on: the run of the store and the clips that can be used."""
        return f"{self._store.run_id} {self.clips.digest()}"

    def num_uncertain(self) -> int:
        """Return how many clips take the full frame because their boxes are less certain than asked for."""
        return self._guides.num_uncertain()

    def remarks(self) -> str:
        """Say how many clips there are, and what stands in for boxes that are missing."""
        parts = [f"{len(self)} clips"]
        if self.clips.has_made_splits:
            named = any(self.labels.column("split").to_pylist())
            parts.append(
                "a fifth of the videos stands for `validation`, the others for `train`"
                + (", whatever the clip list names (data.split=none)" if named else "")
            )
        if self.clips.left_out:
            parts.append(f"{len(self.clips.left_out)} more have no boxes in the store and are left out")
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
        part.clips = self.clips.subset(rows)
        part._guides = self._guides.subset(part.clips)
        return part

    def box_sources(self, index: int) -> NDArray[np.uint8]:
        """Return where each box of a clip comes from, uint8 (T,): values of `motionbox.motion.boxes.BoxSource`."""
        return np.asarray(self._store.frame_sources(self.clip_ids[index]))

    def num_frames(self, index: int) -> int:
        """Return how many frames the store knows of a clip."""
        return self.clips.num_frames[index]

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
        clip_id = self.clip_ids[index]
        pixels = self._cache.read(clip_id, frames, self.num_frames(index), partial(self._decode, index))
        return pixels, self.boxes(index, frames, (pixels.shape[2], pixels.shape[1]))

    def read_ahead(self, clips: Iterable[tuple[int, NDArray[np.int64] | None]], *, keep: int = 0) -> None:
        """Begin to fetch what `read` and `read_planes` will need, see `Store.read_ahead`; nothing on a file system.

        Args:
            clips: Places in `clip_ids`, in the order in which they will be read, and positions among their frames;
                None: all of them.
            keep: How many calls before this one still hold.
        """
        if self._from_source:
            return
        named = ((self.clip_ids[index], frames) for index, frames in clips)
        self._store.read_ahead(
            (
                (clip_id, frames if self._cache.is_full else None)
                for clip_id, frames in named
                if clip_id not in self._cache and self._store.has_clip(clip_id)
            ),
            keep=keep,
        )

    def frame_wh(self, index: int) -> tuple[int, int]:
        """Return width and height of the frames that `read` gives, without reading any."""
        return working_size(*self.clips.sizes_wh[index], self._short_side_px)

    def boxes(self, index: int, frames: NDArray[np.int64], frame_wh: tuple[int, int]) -> NDArray[np.float32]:
        """Return the boxes of frames of a clip, float32 (T, 4) xyxy in pixels of frames of that width and height.

        Raises:
            ClipUnreadableError: A box lies outside its frame, or the frames have other proportions than the clip.
        """
        return self._guides.boxes(index, frames, frame_wh)

    def areas(self, index: int, frames: NDArray[np.int64]) -> FrameAreas | None:
        """Return the motion areas of frames of a clip, see `Guides.areas`; None where boxes guide."""
        return self._guides.areas(index, frames)

    def flow(self, index: int, frames: NDArray[np.int64]) -> FrameFlow:
        """Return the flow from each of some frames of a clip to the next, see `Guides.flow`."""
        return self._guides.flow(index, frames)

    def read_planes(
        self,
        index: int,
        frames: NDArray[np.int64],
        memory: Pixels | None = None,
        window_xywh: tuple[int, int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Read frames of a clip as the store keeps them, see `Store.clip_planes`.

        Args:
            index: Place of the clip in `clip_ids`.
            frames: (T,) positions among the clip's frames.
            memory: uint8 (bytes,), where to write the planes from its beginning on; None: new memory.
            window_xywh: The part of each frame that is wanted, all numbers even; None: all of it. Not of clips that
                are kept in memory.

        Returns:
            uint8 (T, h * 3 / 2, w) of the window, or of the frames with odd sides padded by a pixel.

        Raises:
            ClipUnreadableError: The clip cannot be decoded.
            DataError: The store keeps no H.264 frames of the clip, or larger ones than asked for.
        """
        clip_id, size = self.clip_ids[index], self.stored_wh(index)
        width, height = map(padded, size) if window_xywh is None else window_xywh[2:]
        shape = (len(frames), height * 3 // 2, width)
        out = None if memory is None else memory[: math.prod(shape)].reshape(shape)
        decode = partial(self._planes, index, window_xywh)
        return self._cache.read(clip_id, frames, self.num_frames(index), decode, out)

    def stored_sizes(self) -> set[tuple[int, int]]:
        """Return the widths and heights of all clips' frames as the store keeps them.

        Raises:
            DataError: As `read_planes`.
        """
        return {self.stored_wh(index) for index in range(len(self))}

    def leaves_views_to(self, device: str, convert_on: str) -> bool:
        """Return whether the device makes RGB crops of this reader's clips.

        Args:
            device: Its type.
            convert_on: `worker`; `device`; or `auto`, the device where it is a GPU and the store's clips allow it.

        Raises:
            DataError: `device`, and the store's clips do not allow it.
        """
        if convert_on == "worker" or (convert_on == "auto" and device != "cuda"):
            return False
        try:
            self.stored_sizes()
            self._planes(0, None, np.zeros(1, np.int64), None)
        except ClipUnreadableError:
            return True  # one broken clip says nothing about the others
        except DataError:
            if convert_on == "device":
                raise
            return False
        return True

    def stored_wh(self, index: int) -> tuple[int, int]:
        """Return width and height of a clip's frames as the store keeps them.

        Raises:
            DataError: As `read_planes`.
        """
        clip_id = self.clip_ids[index]
        if self._from_source or not self._store.has_clip(clip_id):
            raise DataError(
                f"data.convert_on must be worker where the store keeps no frames, got device and clip {clip_id}; "
                "`motionbox extract --clips` makes a store that does"
            )
        size = working_size(*self.clips.sizes_wh[index], SHORT_SIDE_PX)  # `Store.clip_size`, faster
        if min(size) > self._short_side_px:
            raise DataError(
                f"data.convert_on must be worker where stored frames are reduced, got device, data.short_side_px "
                f"{self._short_side_px} and clip {clip_id} of {size[0]}x{size[1]}"
            )
        return size

    def _planes(
        self,
        index: int,
        window_xywh: tuple[int, int, int, int] | None,
        frames: NDArray[np.int64],
        out: Pixels | None,
    ) -> Pixels:
        try:
            return self._store.clip_planes(self.clip_ids[index], frames, window_xywh=window_xywh, out=out)
        except ClipError as error:
            if error.reason == Reason.UNSUPPORTED:
                raise DataError(f"data.convert_on must be worker for this store, got device: {error}") from None
            raise ClipUnreadableError(f"clip {self.clip_ids[index]}: {error}") from None

    def _decode(self, index: int, frames: NDArray[np.int64], _: Pixels | None) -> Pixels:
        clip_id = self.clip_ids[index]
        if not self._from_source and self._store.has_clip(clip_id):
            try:
                return self._store.clip_frames(clip_id, frames, short_side_px=self._short_side_px)
            except ClipError as error:
                raise ClipUnreadableError(f"clip {clip_id}: {error}") from None
        times = self._store.frame_times(clip_id)[frames]
        path = self._root / self.clips.paths[index]
        rate = self.clips.rates[index]
        try:
            return read_frames_at(path, times, short_side_px=self._short_side_px, fps=rate, numbered=rate is not None)
        except ClipError as error:
            raise ClipUnreadableError(error.message) from None

    def sources(self) -> list[tuple[str, Path, NDArray[np.float64], float | None]]:
        """Return clip id, source path, times of all frames and frame rate of every clip."""
        return [
            (clip_id, self._root / path, self._store.frame_times(clip_id), rate)
            for clip_id, path, rate in zip(self.clip_ids, self.clips.paths, self.clips.rates, strict=True)
        ]

    def motion(self, index: int, frames: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the clip's mean motion map over the frames, float32 (h, w), of the whole frame, 0 to 255."""
        maps = self._store.motion_maps(self.clip_ids[index])[frames]
        return np.asarray(maps.mean(0), np.float32)
