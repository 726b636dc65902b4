"""Reading a store: what trainers import. Loads NumPy and pyarrow; pydantic, Zarr and PyAV when they are needed.

A `Store` shows one snapshot of one run. A snapshot never changes, so a reader sees the same data however long it is
open, also while an extraction runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.errors import StoreError
from motionbox.motion.boxes import BoxSource, is_static
from motionbox.storage import StorePath, parse_place
from motionbox.storage.local_copies import hold_files, nothing_held
from motionbox.store.areas.files import Pin
from motionbox.store.areas.guidance import MOTION, Guidance, guidance_names
from motionbox.store.areas.reader import AreaReader, computed_areas
from motionbox.store.clip_blocks import SHORT_SIDE_PX, read_clip_frames, read_clip_planes
from motionbox.store.layout import AREAS_FILE, SNAPSHOT_FILE, RunPaths, check_store, files_of, read_json, run_infos
from motionbox.store.reading.clips import ClipFrames, Decode
from motionbox.store.reading.tables import FrameIndices, SnapshotTables
from motionbox.store.unit_arrays import UnitArrays, read_flow, read_maps
from motionbox.store.video_rows import read_video_rows
from motionbox.video.frames import working_size

if TYPE_CHECKING:
    from motionbox.config import ExtractConfig

_COPIES = "frames-"  # of the frame rows, for other programs

_PRIVATE_COLUMNS = (
    *("first_row", "map_width", "map_height"),
    *("first_clip_block", "num_clip_blocks", "first_area_block", "num_area_blocks"),
)


def open_store(path: str | StorePath, *, run: str | None = None, snapshot: int | None = None) -> Store:
    """Open a store for reading; only what is committed is seen.

    Args:
        path: The store's directory, or its URL (`s3://`, `gs://`, `az://`).
        run: Run id or the beginning of one, or the preset of one run; None: the run whose snapshot is the newest.
        snapshot: Number of a snapshot of that run; None: its newest.

    Raises:
        StoreError: Not a store, a store of another program or a newer version, no such run, or nothing to read yet.
    """
    root = parse_place(path)
    check_store(root)
    presets = {paths: info.get("config", {}).get("preset") for paths, info in run_infos(root)}
    candidates = [
        paths for paths, preset in presets.items() if run is None or run == preset or paths.root.name.startswith(run)
    ]
    if run is not None and len(candidates) != 1:
        known = ", ".join(f"{paths.root.name} ({preset})" for paths, preset in presets.items()) or "none"
        raise StoreError(f"run must name one run of store {root}, got {run!r}; its runs: {known}")
    found = [
        (paths, number, paths.snapshot_info(number))
        for paths in candidates
        for number in (paths.snapshot_numbers()[-1:] if snapshot is None else paths.snapshot_numbers())
        if snapshot in (None, number)
    ]
    if not found:
        what = "no snapshot" if snapshot is None else f"no snapshot {snapshot}"
        raise StoreError(f"store {root} has {what} yet; run `motionbox extract` with --store {root}, or see its status")
    return Store(root, *max(found, key=lambda entry: float(entry[2]["created_unix"])))


class Store:
    """One snapshot of one run, read-only. Safe to pickle and to use after a fork; not to share between threads.

    Attributes:
        path: The store's directory or prefix.
        run_id: The run.
        snapshot: Number of the snapshot.
        info: The snapshot's MANIFEST.json.
    """

    def __init__(self, path: StorePath, paths: RunPaths, snapshot: int, info: dict[str, Any]) -> None:
        self.path = path
        self.run_id = paths.root.name
        self.snapshot = snapshot
        self._paths = paths
        self._pin = Pin(paths.snapshot(snapshot) / SNAPSHOT_FILE)
        self.info = info
        self._directory = files_of(paths.snapshot(snapshot), info)
        held = {name: told for name, told in self.info["files"].items() if not name.startswith(_COPIES)}
        self._let_go = hold_files(self._directory, held)
        self._tables = SnapshotTables(path, self._directory, partial(read_json, paths.run_json))
        self._unit_arrays = UnitArrays([paths.attempt(unit, attempt) for unit, attempt in self.info["units"]])
        self._clips = ClipFrames(paths, self.info["units"], self._directory, self._tables.clips)
        clips = self._tables.clips
        self._areas = AreaReader(self._directory, clips) if AREAS_FILE in self.info["files"] else None
        self._guidances: dict[str, Guidance] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self.run_id, self.snapshot)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the snapshot, so that `motionbox gc` may remove it."""
        for opened in self._guidances.values():
            opened.close()
        self._clips.close()
        self._pin.release()
        let_go, self._let_go = self._let_go, nothing_held
        let_go()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            self.close()

    def __len__(self) -> int:
        return int(self._tables.clips.num_rows)

    def config(self) -> ExtractConfig:
        """Return the configuration that made the run. Loads pydantic."""
        from motionbox.config import config_of_run

        return config_of_run(read_json(self._paths.run_json)["config"])

    def run_info(self) -> dict[str, Any]:
        """Return the content of `run.json`: data set, data root, versions, digests, config."""
        return read_json(self._paths.run_json)

    def clips(self) -> pa.Table:
        """Return one row per clip, in the order of the data set.

        Columns: clip_id, video_id, start_seconds, stop_seconds (null: the whole video), num_frames, width, height
        (display pixels), fps, status (`ok`, `partial`: decoding broke off, `no_motion`: the centre half stands in,
        `failed`), reason (empty, or "code: message"), x1, y1, x2, y2 (clip box, half-open pixels, null when failed),
        then path, split and the label columns of the data set, then confidence (0 to 1, null when failed: how clearly
        the clip's motion lies inside its boxes).
        """
        clips = self._tables.clips
        return clips.drop_columns([name for name in _PRIVATE_COLUMNS if name in clips.column_names])

    def guidance_sources(self) -> list[str]:
        """Return what `frame_boxes` and `motion_areas` can be asked for: `motion` and what `import-boxes` made."""
        return [MOTION, *guidance_names(self._paths)]

    def guidance_info(self, source: str) -> dict[str, Any]:
        """Return what a guidance says about itself: how and from what it was made, and its counts.

        Raises:
            StoreError: The store has no such source.
        """
        return self.info if source == MOTION else self._guidance(source).info

    def frame_boxes(self, clip_id: str, *, source: str = MOTION) -> npt.NDArray[np.int32]:
        """Return a clip's stabilised boxes, int32 (T, 4), xyxy half-open display pixels; (0, 4) for a failed clip.

        Args:
            clip_id: The clip.
            source: One of `guidance_sources`; for others than `motion`, a clip that it lacks has rows of -1.

        Raises:
            StoreError: The store has no such clip or source.
        """
        if source != MOTION:
            return self._guidance(source).boxes(clip_id, self._tables.num_frames(clip_id))
        return self._tables.boxes[self._tables.frames(clip_id)].astype(np.int32)

    def frame_times(self, clip_id: str) -> npt.NDArray[np.float64]:
        """Return the times of a clip's frames, float64 (T,), seconds of the video, increasing.

        Raises:
            StoreError: The store has no such clip.
        """
        return self._tables.times[self._tables.frames(clip_id)].copy()

    def frame_sources(self, clip_id: str) -> npt.NDArray[np.uint8]:
        """Return where each box of a clip comes from, uint8 (T,): values of `boxes.BoxSource`.

        Raises:
            StoreError: The store has no such clip.
        """
        return self._tables.sources[self._tables.frames(clip_id)].copy()

    def frame_confidences(self, clip_id: str) -> npt.NDArray[np.float32]:
        """Return how clearly each frame's motion lies inside its box, float32 (T,), in [0, 1]; 0 for a stand-in box.

        Raises:
            StoreError: The store has no such clip.
        """
        return self._tables.confidences[self._tables.frames(clip_id)].copy()

    def motion_maps(self, clip_id: str) -> npt.NDArray[np.uint8]:
        """Return a clip's motion maps, uint8 (T, h, w), 1/`store.map_scale` of the working size.

        The value is 255 * sqrt(m / `store.map_full_scale`) for a motion m in pixels per frame step and pixel (in pixels
        per frame step with `motion.cue` = "residual"). A frame without flow has a map of zeros.

        Raises:
            StoreError: The store has no such clip, or keeps no motion maps.
        """
        if not self.info["motion_maps"]:
            raise StoreError(f"run {self.run_id} of store {self.path} keeps no motion maps (store.motion_maps = false)")
        places = self._tables.maps[self._tables.frames(clip_id)]
        return read_maps(self._unit_arrays, places, self.grid_hw(clip_id))

    def motion_areas(
        self,
        clip_id: str,
        frame_indices: FrameIndices | None = None,
        *,
        source: str = MOTION,
    ) -> npt.NDArray[np.uint8]:
        """Return how strongly each cell of each frame belongs to the action, uint8 (T, h, w): 0 outside, 255 strongest.

        The cells are those of `motion_maps`; `frame_cells_wh` says how many of them the frame is wide and high. All 0
        where a clip has no motion; (0, 0, 0) for a failed clip. Where the snapshot holds maps but no areas, they are
        computed from the clip's maps, which takes what extraction needs.

        Args:
            clip_id: The clip.
            frame_indices: (n,) positions among the rows of `frame_times`; None: all of them.
            source: One of `guidance_sources`.

        Raises:
            StoreError: The store has no such clip or source, keeps no motion maps, or they are to be
                computed and OpenCV is missing.
            ValueError: A position lies outside.
        """
        places, count = self._tables.chosen(clip_id, frame_indices), self._tables.num_frames(clip_id)
        if source != MOTION:
            return self._guidance(source).areas(clip_id, count, np.arange(count)[places], self.grid_hw(clip_id))
        if self._areas is not None:
            return self._areas.read(self._tables.row(clip_id), self.grid_hw(clip_id), np.arange(count)[places])
        return self._computed_areas(clip_id)[places]

    def frame_size(self, clip_id: str) -> tuple[int, int]:
        """Return width and height of a clip's frames in display pixels; (0, 0) for a failed clip.

        Raises:
            StoreError: The store has no such clip.
        """
        return self._tables.frame_size(clip_id)

    def frame_cells_wh(self, clip_id: str) -> tuple[float, float]:
        """Return the width and height of a clip's frames in cells of its motion maps and areas.

        The last column and row of cells may be cut by the frame's border, hence fractions; (0, 0) for a failed clip.

        Raises:
            StoreError: The store has no such clip.
        """
        return self._tables.frame_cells_wh(clip_id)

    def grid_hw(self, clip_id: str) -> tuple[int, int]:
        """Return the height and width of a clip's grid of cells, also where the run keeps no maps.

        Raises:
            StoreError: The store has no such clip.
        """
        return self._tables.grid_hw(clip_id)

    def _computed_areas(self, clip_id: str) -> npt.NDArray[np.uint8]:
        """Return the areas of a snapshot from before it held them."""
        maps, times = self.motion_maps(clip_id), self.frame_times(clip_id)
        if maps.size == 0 or self._stands_still(clip_id):
            return np.zeros_like(maps)
        return computed_areas(maps, times, *self.frame_size(clip_id), self.config())

    def _stands_still(self, clip_id: str) -> bool:
        """Return whether a clip counts as static, so that its maps count for nothing; see `store.static_energy`."""
        if (self.frame_sources(clip_id) != BoxSource.CENTRE).any():
            return False
        times = self.frame_times(clip_id)
        rows = self.video_rows(str(self._tables.clips.column("video_id")[self._tables.row(clip_id)].as_py()))
        own = np.isin(rows.column("time_seconds").to_numpy(), times)
        return is_static(rows.column("energy").to_numpy()[own], self.config().store.static_energy)

    def _guidance(self, source: str) -> Guidance:
        """Return a named guidance; the version that was the newest when it was first asked for."""
        if source not in self._guidances:
            if source not in self.guidance_sources():
                known = ", ".join(self.guidance_sources())
                raise StoreError(
                    f"source must be one of {known}, got {source!r}; `motionbox import-boxes {self.path}` makes others"
                )
            self._guidances[source] = Guidance(self._paths, source)
        return self._guidances[source]

    def flow(self, clip_id: str, frame_indices: FrameIndices | None = None) -> npt.NDArray[np.float32]:
        """Return a clip's flow, float32 (T, h, w, 2): u and v in pixels of the working size per frame step.

        A frame's flow goes to the next distinct frame, or to the one `flow.step_seconds` later. A repeated frame has
        that of the frame it repeats, the last frame of a video that of the frame before; without flow it is zeros.

        Args:
            clip_id: The clip.
            frame_indices: (T,) positions among the rows of `frame_times`; None: all of them.

        Raises:
            StoreError: The store has no such clip, or keeps no flow.
            ValueError: A position lies outside.
        """
        config = self.config()
        if config.store.flow == "none":
            raise StoreError(
                f'run {self.run_id} of store {self.path} keeps no flow (store.flow = "none"); '
                "`motionbox extract --save flow` makes a run that does"
            )
        places = self._tables.maps[self._tables.frames(clip_id)][self._tables.chosen(clip_id, frame_indices)]
        width, height = self.frame_size(clip_id)
        width, height = working_size(width, height, config.frames.short_side_px) if width else (0, 0)
        return read_flow(self._unit_arrays, places, (height, width), config.store.flow, config.store.flow_bound_px)

    def video_rows(self, video_id: str) -> pa.Table:
        """Return every processed frame of a video, also those outside of clips (`frames.spans`), in order of time.

        Columns: time_seconds, x1, y1, x2, y2 (raw box before stabilising, half-open display pixels, null: none),
        energy, confidence and origin, see docs/store.md.

        Raises:
            StoreError: The snapshot has no frames of such a video, or a file is damaged.
        """
        return read_video_rows(self._paths, self.info["units"], video_id)

    def has_clip(self, clip_id: str) -> bool:
        """Return whether the store keeps all frames of a clip in colour (`motionbox extract --clips`).

        Raises:
            StoreError: The store has no such clip.
        """
        return self._clips.has(self._tables.row(clip_id))

    def clip_size(self, clip_id: str) -> tuple[int, int]:
        """Return width and height of the frames that `clip_frames` gives.

        Raises:
            StoreError: The store has no such clip, or keeps no frames of it.
        """
        self._clip_row(clip_id)
        return working_size(*self.frame_size(clip_id), SHORT_SIDE_PX)

    def clip_frames(
        self,
        clip_id: str,
        frame_indices: FrameIndices,
        *,
        short_side_px: int | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Return frames of a clip, uint8 (n, h, w, 3) RGB, upright, in the order asked for.

        Args:
            clip_id: The clip.
            frame_indices: (n,) positions among the rows of `frame_times` and `frame_boxes`; repeats allowed.
            short_side_px: Larger frames are reduced (area mean) to this short side; None: to 256, as stored.

        Raises:
            StoreError: The store has no such clip, or keeps no frames of it.
            ClipError: The stored frames are damaged.
            ValueError: A position lies outside.
        """
        return self._read_clip(clip_id, frame_indices, partial(read_clip_frames, short_side_px=short_side_px))

    def read_ahead(self, clips: Iterable[tuple[str, FrameIndices | None]], *, keep: int = 0) -> None:
        """Begin to fetch frames that will be asked for soon, many requests in flight; nothing on a file system.

        At most 64 blocks and 64 MiB of this store are under way or wait to be asked for; the others follow.

        Args:
            clips: Clips that the store keeps frames of, in the order in which they will be asked for, and which
                positions of each; None: all of them.
            keep: How many calls before this one still hold; what was begun earlier and not asked for since is let go.

        Raises:
            StoreError: The store has no such clip, or keeps no frames of it.
        """
        if isinstance(self.path, Path):
            return
        wanted = []
        for clip_id, positions in clips:
            row, times = self._clip_row(clip_id), self._tables.times[self._tables.frames(clip_id)]
            wanted.append((row, times if positions is None else times[np.asarray(positions, np.int64)]))
        self._clips.read_ahead(wanted, keep=keep)

    def clip_planes(
        self,
        clip_id: str,
        frame_indices: FrameIndices,
        *,
        window_xywh: tuple[int, int, int, int] | None = None,
        out: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Return frames of a clip as they are decoded, uint8 (n, h * 3 / 2, w), see `clip_blocks.read_clip_planes`.

        h and w are those of the window; without one those of `clip_size`, rounded up to even numbers.

        Args:
            clip_id: The clip.
            frame_indices: As in `clip_frames`.
            window_xywh: The part of each frame that is copied, all numbers even; None: all of it.
            out: Where to write them; None: new memory.

        Raises:
            StoreError: The store has no such clip, or keeps no frames of it.
            ClipError: The stored frames are damaged, JPEG files, or of another size than `out`.
            ValueError: A position or the window lies outside, or the window is not even.
        """
        return self._read_clip(clip_id, frame_indices, partial(read_clip_planes, window_xywh=window_xywh), out)

    def _read_clip(
        self,
        clip_id: str,
        frame_indices: FrameIndices,
        decode: Decode,
        out: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[np.uint8]:
        row = self._clip_row(clip_id)
        positions = self._tables.positions(clip_id, frame_indices, at_least=1)
        return self._clips.read(row, self._tables.times[self._tables.frames(clip_id)][positions], decode, out)

    def _clip_row(self, clip_id: str) -> int:
        if not self.has_clip(clip_id):
            raise StoreError(
                f"run {self.run_id} of store {self.path} keeps no frames of clip {clip_id!r}; "
                "`motionbox extract --clips` makes a run that does"
            )
        return self._tables.row(clip_id)


def _reopen(path: str, run: str, snapshot: int) -> Store:
    return open_store(path, run=run, snapshot=snapshot)
