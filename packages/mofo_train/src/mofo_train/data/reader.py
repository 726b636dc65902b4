"""Reads chosen frames of a store's clips with their boxes and motion areas."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from mofo_train.config import FoldsConfig, GuidanceConfig, usual_split
from mofo_train.data.areas import TUBELET_FRAMES, FrameAreas, FrameFlow
from mofo_train.data.labels import splits_of
from mofo_train.errors import DataError
from motionbox.errors import ClipError, Reason
from motionbox.motion.boxes import clip_box
from motionbox.store import Store
from motionbox.store.clip_blocks import SHORT_SIDE_PX
from motionbox.video import read_frames_at, working_size

BoxUse = Literal["stored", "full_frame", "random"]


_STRONGEST = 255  # of motion areas
_FLOW_SCALE = 4  # pixels of the working size on a side of a cell of flow
Pixels = NDArray[np.uint8]


class ClipUnreadableError(DataError):
    """One clip cannot be decoded; training goes on without it."""


class ClipCache:
    """Keeps the first clips that are asked for, all their frames, until its memory is full.

    Nothing is thrown out: an epoch asks for every clip once, so a clip that comes would push out one that is as useful.
    """

    def __init__(self, gib: float) -> None:
        """Create an empty cache of so many GiB; 0 = none."""
        self._clips: dict[str, Pixels] = {}
        self._room_bytes = int(gib * 2**30)

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._clips

    def read(
        self,
        clip_id: str,
        frames: NDArray[np.int64],
        num_frames: int,
        decode: Callable[[NDArray[np.int64], Pixels | None], Pixels],
        out: Pixels | None = None,
    ) -> Pixels:
        """Return frames of a clip, decoded now or before.

        Args:
            clip_id: The clip.
            frames: (T,) positions among its frames.
            num_frames: All frames of the clip.
            decode: Positions, and where to write or None -> uint8 (T, ...); called for all frames while there is
                room, then for those asked for.
            out: Where to write them, uint8 (T, ...); None: new memory.
        """
        whole = self._clips.get(clip_id)
        if whole is None and self._room_bytes > 0:
            whole = decode(np.arange(num_frames), None)
            self._room_bytes -= whole.nbytes
            if self._room_bytes >= 0:
                self._clips[clip_id] = whole
        return decode(frames, out) if whole is None else whole.take(frames, axis=0, out=out)


class ClipReader:
    """Reads chosen frames of a store's clips with their boxes, and with their motion areas where these guide.

    Attributes:
        clip_ids: The clips that can be used, in the store's order.
        labels: The store's table of these clips, label columns included.
        left_out: Clip id -> why, of the split's clips that the store has no boxes for.
        guidance: Whose boxes, or areas, these are.
        in_memory: Whether decoded clips are kept.
        has_made_splits: A share of the videos stands for `validation`, the store does not say which.
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
        self.guidance = guidance or GuidanceConfig()
        if self.guidance.source not in store.guidance_sources():
            known, wanted = ", ".join(store.guidance_sources()), self.guidance.source
            raise DataError(
                f"guidance.source must be one of {known}, got {wanted!r}; store {store.path}; "
                f"`motionbox import-boxes {store.path} --boxes F --name {wanted}` makes it"
            )
        table = store.clips()
        self.has_made_splits = False
        if split is not None:
            splits, are_listed = splits_of(table, as_listed=as_listed, folds=folds)
            self.has_made_splits = not are_listed and folds is None
            if usual_split(split) not in splits:
                known = ", ".join(sorted({name for name in splits if name is not None}))
                raise DataError(
                    f"split must be one of {known}, got {split!r}; store {store.path}; choose with "
                    "--set data.split=NAME and test.split=NAME"
                )
            table = table.filter([own == usual_split(split) for own in splits])
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
        self.in_memory = cache_gib > 0
        self._cache = cache or ClipCache(cache_gib)
        self._kept: dict[str, NDArray[np.uint8]] = {}  # areas, and boxes below: of clips in memory, these are as well
        self._kept_boxes: dict[str, NDArray[np.int32]] = {}
        self._kept_steps: dict[str, NDArray[np.float16]] = {}
        self._room_for_steps = int(cache_gib * 2**30)
        self._rows: list[tuple[Any, ...]] = list(_columns(self.labels, "path", "num_frames", "width", "height"))
        self._confidences: list[float] = self.labels.column("confidence").to_pylist()
        rates = "frame_fps" in self.labels.column_names
        self._cells_wh: dict[str, tuple[float, float]] = {}
        if self.guidance.kind == "area":
            self.areas(0, np.zeros(TUBELET_FRAMES, np.int64))  # a store without areas says so here
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
        if self.has_made_splits:
            parts.append("a fifth of the videos stands for `validation`, the others for `train`")
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
        clip_id = self.clip_ids[index]
        pixels = self._cache.read(clip_id, frames, self.num_frames(index), partial(self._decode, index))
        return pixels, self.boxes(index, frames, (pixels.shape[2], pixels.shape[1]))

    def read_ahead(self, clips: Sequence[tuple[int, NDArray[np.int64] | None]]) -> None:
        """Begin to fetch what `read` and `read_planes` will need, see `Store.read_ahead`.

        Args:
            clips: Places in `clip_ids`, and positions among their frames; None: all of them.
        """
        if self._from_source:
            return
        named = ((self.clip_ids[index], frames) for index, frames in clips)
        self._store.read_ahead(
            (clip_id, frames)
            for clip_id, frames in named
            if clip_id not in self._cache and self._store.has_clip(clip_id)
        )

    def frame_wh(self, index: int) -> tuple[int, int]:
        """Return width and height of the frames that `read` gives, without reading any."""
        return working_size(self._rows[index][2], self._rows[index][3], self._short_side_px)

    def boxes(self, index: int, frames: NDArray[np.int64], frame_wh: tuple[int, int]) -> NDArray[np.float32]:
        """Return the boxes of frames of a clip, float32 (T, 4) xyxy in pixels of frames of that width and height.

        Raises:
            ClipUnreadableError: A box lies outside its frame, or the frames have other proportions than the clip.
        """
        _, _, width, height = self._rows[index]
        boxes = self._boxes(index)[frames].astype(np.float32)
        limits = np.array([width, height, width, height], np.float32)
        if (
            (boxes < 0).any()
            or (boxes > limits).any()
            or abs(frame_wh[0] * height - frame_wh[1] * width) > max(width, height)
        ):
            raise ClipUnreadableError(
                f"clip {self.clip_ids[index]} must have boxes inside its {frame_wh[0]}x{frame_wh[1]} frames, got some "
                f"outside or frames that are not {width}x{height}; extract it again"
            )
        return boxes * np.array(frame_wh * 2, np.float32) / limits

    def read_planes(
        self, index: int, frames: NDArray[np.int64], memory: Pixels | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], tuple[int, int]]:
        """Read frames of a clip as the store keeps them, see `Store.clip_planes`.

        Args:
            index: Place of the clip in `clip_ids`.
            frames: (T,) positions among the clip's frames.
            memory: uint8 (bytes,), where to write the planes from its beginning on; None: new memory.

        Returns:
            uint8 (T, h * 3 / 2, w); float32 (T, 4) xyxy boxes in these frames' pixels; their width and height, which
            are w and h or one less.

        Raises:
            ClipUnreadableError: The clip cannot be decoded.
            DataError: The store keeps no H.264 frames of the clip, or larger ones than asked for.
        """
        clip_id = self.clip_ids[index]
        size = self._stored_size(index)
        shape = (len(frames), (size[1] + size[1] % 2) * 3 // 2, size[0] + size[0] % 2)
        out = None if memory is None else memory[: math.prod(shape)].reshape(shape)
        planes = self._cache.read(clip_id, frames, self.num_frames(index), partial(self._planes, index), out)
        return planes, self.boxes(index, frames, size), size

    def most_plane_bytes(self) -> int:
        """Return how many bytes one frame of the largest clip has as `read_planes` gives it.

        Raises:
            DataError: As `read_planes`.
        """
        sizes = {self._stored_size(index) for index in range(len(self))}
        return max((width + width % 2) * (height + height % 2) * 3 // 2 for width, height in sizes)

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
            self.most_plane_bytes()
            self._planes(0, np.zeros(1, np.int64), None)
        except ClipUnreadableError:
            return True  # one broken clip says nothing about the others
        except DataError:
            if convert_on == "device":
                raise
            return False
        return True

    def _stored_size(self, index: int) -> tuple[int, int]:
        clip_id = self.clip_ids[index]
        if self._from_source or not self._store.has_clip(clip_id):
            raise DataError(
                f"data.convert_on must be worker where the store keeps no frames, got device and clip {clip_id}; "
                "`motionbox extract --clips` makes a store that does"
            )
        size = working_size(self._rows[index][2], self._rows[index][3], SHORT_SIDE_PX)  # `Store.clip_size`, faster
        if min(size) > self._short_side_px:
            raise DataError(
                f"data.convert_on must be worker where stored frames are reduced, got device, data.short_side_px "
                f"{self._short_side_px} and clip {clip_id} of {size[0]}x{size[1]}"
            )
        return size

    def _planes(self, index: int, frames: NDArray[np.int64], out: Pixels | None) -> Pixels:
        try:
            return self._store.clip_planes(self.clip_ids[index], frames, out=out)
        except ClipError as error:
            if error.reason == Reason.UNSUPPORTED:
                raise DataError(f"data.convert_on must be worker for this store, got device: {error}") from None
            raise ClipUnreadableError(f"clip {self.clip_ids[index]}: {error}") from None

    def _boxes(self, index: int) -> NDArray[np.int32]:
        """Return the boxes of all frames of a clip, int32 (T, 4) in display pixels, as the recipe wants them."""
        _, _, width, height = self._rows[index]
        clip_id = self.clip_ids[index]
        kept = self._kept_boxes.get(clip_id)
        if kept is not None:
            return kept
        boxes = self._store.frame_boxes(clip_id, source=self.guidance.source)
        if self.guidance.source != "motion":
            boxes[(boxes < 0).all(1)] = 0  # frames that it says nothing of: nothing is inside
        if self.in_memory:
            self._kept_boxes[clip_id] = boxes  # changed below where others are asked for
        if self._box_use == "full_frame" or self._is_uncertain(index):
            boxes[:] = (0, 0, width, height)
        elif self._box_use == "random":
            around = clip_box(boxes)
            spare = np.maximum([width - around[2] + around[0], height - around[3] + around[1]], 0)
            place = self._chance(index).integers(0, spare, endpoint=True)
            boxes += np.tile(place - around[:2], 2).astype(np.int32)
        return boxes

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
        clip_id, source = self.clip_ids[index], self.guidance.source
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
        clip_id = self.clip_ids[index]
        first, count = int(frames[0]), self.num_frames(index)
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
        if not self.in_memory:
            return self._store.motion_areas(clip_id, frames, source=source)
        if clip_id not in self._kept:
            self._kept[clip_id] = self._store.motion_areas(clip_id, source=source)
        whole = self._kept[clip_id]
        return whole[frames] if whole.size else whole

    def _chance(self, index: int) -> np.random.Generator:
        """Return random numbers that are always the same for a clip."""
        digest = hashlib.sha256(self.clip_ids[index].encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8]))

    def _is_uncertain(self, index: int) -> bool:
        return bool(self._box_use == "stored" and self._confidences[index] < self._min_confidence)

    def _decode(self, index: int, frames: NDArray[np.int64], _: Pixels | None) -> Pixels:
        clip_id = self.clip_ids[index]
        if not self._from_source and self._store.has_clip(clip_id):
            try:
                return self._store.clip_frames(clip_id, frames, short_side_px=self._short_side_px)
            except ClipError as error:
                raise ClipUnreadableError(f"clip {clip_id}: {error}") from None
        times = self._store.frame_times(clip_id)[frames]
        path = self._root / self._rows[index][0]
        rate = self._rates[index]
        try:
            return read_frames_at(path, times, short_side_px=self._short_side_px, fps=rate, numbered=rate is not None)
        except ClipError as error:
            raise ClipUnreadableError(error.message) from None

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
