"""A clip of a store with its footage: what the store says, the video's frames and the flow between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.errors import ClipError
from motionbox.extraction.media.fetching import on_this_machine
from motionbox.inputs.data_root import DataRoot, ListedPath, open_root, place_below
from motionbox.motion.boxes import clip_box
from motionbox.pictures.draw import nice_scale
from motionbox.store.areas.guidance import MOTION
from motionbox.video import read_colour_frames
from motionbox.video.frames import working_size

if TYPE_CHECKING:
    from motionbox.config import ExtractConfig
    from motionbox.scoring.box_metrics import AnnotatedClip
    from motionbox.store import Store

Picture = NDArray[np.uint8]
Moment = tuple[int, Picture | None, NDArray[np.float32] | None]
Panel = Literal["boxes", "areas", "flow", "map"]
PANELS: tuple[Panel, ...] = ("boxes", "areas", "flow", "map")

_LEAST_SCALE_PX = 0.5  # the flow of a still clip is noise and shall look like it
_SCALE_SAMPLES = 24  # pairs of frames that the flow's colour scale is taken from


@dataclass(frozen=True)
class ClipBoxes:
    """What one store says about one clip.

    Attributes:
        name: What to call the store, e.g. its preset.
        row: The clip's row of `Store.clips()`.
        times: float64 (T,), seconds.
        boxes: int32 (T, 4), stabilised frame boxes in display pixels.
        sources: uint8 (T,), a `boxes.BoxSource` each.
        maps: uint8 (T, h, w), or None where the store keeps none or the clip has no flow.
        areas: uint8 (T, h, w), 0 outside, 255 strongest; None like the maps.
        cells_wh: Width and height of the frame in their cells.
        config: How they were made.
        video: The video, frame folder or tar; an object where it lies in a bucket.
    """

    name: str
    row: dict[str, Any]
    times: NDArray[np.float64]
    boxes: NDArray[np.int32]
    sources: NDArray[np.uint8]
    maps: NDArray[np.uint8] | None
    areas: NDArray[np.uint8] | None
    cells_wh: tuple[float, float]
    config: ExtractConfig
    video: DataRoot

    @cached_property
    def map_peak(self) -> int:
        """Return the map value that all but a thousandth of the clip's stay under; at least 1."""
        return 1 if self.maps is None else max(1, int(np.quantile(self.maps, 0.999)))

    @property
    def clip_box(self) -> list[int] | None:
        """Return the clip box, None for a failed clip."""
        values = [self.row[side] for side in ("x1", "y1", "x2", "y2")]
        return None if None in values or values[0] < 0 else values


@dataclass(frozen=True)
class View:
    """What is drawn: one clip in one or more stores.

    Attributes:
        clips: The same clip as each store has it; the first one's video and flow are shown.
        truth: Annotated boxes of the clip, or None; number n stands (n - 1) / `truth_fps` seconds after its start.
        panels: What is shown beside each other.
        height_px: Height of a panel.
        max_seconds: Longer clips are cut off.
        truth_fps: Rate of the annotated frames; None: the clip's own.
    """

    clips: Sequence[ClipBoxes]
    truth: AnnotatedClip | None = None
    panels: Sequence[Panel] = PANELS
    height_px: int = 360
    max_seconds: float = 20.0
    truth_fps: float | None = None

    @property
    def first(self) -> ClipBoxes:
        """Return the first store's clip."""
        return self.clips[0]

    @property
    def panel_wh(self) -> tuple[int, int]:
        """Return the size of one panel in pixels, (width, height)."""
        width, height = self.first.row["width"], self.first.row["height"]
        if not width or not height:
            return round(self.height_px * 4 / 3), self.height_px
        return max(64, round(self.height_px * width / height)), self.height_px

    @property
    def frame_indices(self) -> NDArray[np.int64]:
        """Return the frames that are shown, (N,); one pretended frame for a clip without any."""
        times = self.first.times
        if len(times) == 0:
            return np.zeros(1, np.int64)
        return np.flatnonzero(times - times[0] < self.max_seconds)

    @property
    def fps(self) -> float:
        """Return the rate at which the frames are to be played."""
        times = self.first.times[self.frame_indices] if len(self.first.times) else self.first.times
        return float((len(times) - 1) / (times[-1] - times[0])) if len(times) > 1 and times[-1] > times[0] else 10.0


def load_clip(
    store: Store,
    clip_id: str,
    *,
    data_root: DataRoot | None = None,
    name: str | None = None,
    source: str = MOTION,
) -> ClipBoxes:
    """Read what a store holds about a clip.

    Args:
        store: An open store.
        clip_id: The clip.
        data_root: Where the videos are now; None: where they were at extraction.
        name: What to call the store; None: its preset, or the source.
        source: Whose boxes and areas, see `Store.guidance_sources`.

    Raises:
        StoreError: The store has no such clip or source.
    """
    times, boxes = store.frame_times(clip_id), store.frame_boxes(clip_id, source=source)
    clips = store.clips()
    row = clips.slice(clips.column("clip_id").to_pylist().index(clip_id), 1).to_pylist()[0]
    config = store.config()
    root = open_root(store.run_info()["data_root"]) if data_root is None else data_root
    maps = store.motion_maps(clip_id) if store.info["motion_maps"] and len(times) > 1 else None
    has_areas = len(times) > 1 and (source != MOTION or store.info["motion_maps"])
    if source != MOTION:
        row.update(zip(("x1", "y1", "x2", "y2"), clip_box(boxes).tolist() if len(boxes) else [None] * 4, strict=True))
    return ClipBoxes(
        name=name or (config.preset if source == MOTION else source),
        row=row,
        times=times,
        boxes=boxes,
        sources=store.frame_sources(clip_id) if source == MOTION else np.zeros(len(times), np.uint8),
        maps=maps,
        areas=store.motion_areas(clip_id, source=source) if has_areas else None,
        cells_wh=store.frame_cells_wh(clip_id),
        config=config,
        video=place_below(root, row["path"]),
    )


@dataclass
class Footage:
    """The frames of a view's video, and flow between them, as far as they can be had.

    Attributes:
        problem: Why there are no frames (any more); empty while all is well.
        max_px: Flow of this length is fully saturated.
    """

    view: View
    problem: str = ""
    max_px: float = 1.0
    estimate: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        clip = self.view.first
        if len(clip.times) == 0:
            self.problem = "no frames"
        elif not isinstance(clip.video, ListedPath) and not clip.video.exists():
            self.problem = "video not found"
        elif "flow" in self.view.panels:
            from motionbox.flow import create_flow_estimator

            self.estimate = create_flow_estimator(clip.config.flow)
            self.max_px = self._scale()

    def frames(self) -> Iterator[tuple[int, Picture | None]]:
        """Yield (frame index, RGB picture or None) for every frame of the view."""
        clip, wanted = self.view.first, self.view.frame_indices
        given = self._decode() if not self.problem else iter(())
        pending = next(given, None)
        tolerance = 0.5 / max(self.view.fps, 1.0)
        for index in wanted:
            while pending is not None and pending[0] < clip.times[index] - tolerance:
                pending = next(given, None)
            fits = pending is not None and abs(pending[0] - clip.times[index]) <= tolerance
            yield int(index), pending[1] if pending is not None and fits else None

    def moments(self) -> Iterator[Moment]:
        """Yield (frame index, picture, flow) for every frame of the view; the last frame takes the last flow."""
        flow: NDArray[np.float32] | None = None
        before: tuple[int, Picture | None] | None = None
        for entry in self.frames():
            if before is not None:
                if self.estimate is not None and before[1] is not None:
                    flow = None if entry[1] is None else self.flow(before[1], entry[1])
                yield *before, flow
            before = entry
        if before is not None:
            yield *before, None if before[1] is None else flow

    def _decode(self) -> Iterator[tuple[float, Picture]]:
        row, (width, height) = self.view.first.row, self.view.panel_wh
        frame_fps = row.get("frame_fps")
        try:
            with on_this_machine(self.view.first.video) as video:
                for frame in read_colour_frames(
                    video,
                    short_side_px=min(width, height),
                    start_seconds=row["start_seconds"],
                    stop_seconds=row["stop_seconds"],
                    fps=frame_fps,
                    numbered=frame_fps is not None,
                ):
                    yield frame.time_seconds, frame.rgb
        except ClipError as error:
            self.problem = f"{error.reason}"

    def grey(self, picture: Picture) -> NDArray[np.uint8]:
        """Return a frame as the flow sees it: grey, in the working size of the run."""
        size = working_size(picture.shape[1], picture.shape[0], self.view.first.config.frames.short_side_px)
        small = picture if size == picture.shape[1::-1] else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)

    def flow(self, picture: Picture, following: Picture) -> NDArray[np.float32]:
        """Return the flow from a frame to the one after it, (h, w, 2), pixels of the video per frame step."""
        before, after = self.grey(picture), self.grey(following)
        flow: NDArray[np.float32] = self.estimate(before, after)
        return flow * np.float32((self.view.first.row["width"] or flow.shape[1]) / flow.shape[1])

    def _scale(self) -> float:
        """Return a round number of pixels that only the fastest hundredth of the flow exceeds."""
        indices = self.view.frame_indices
        sampled = set(indices[:: max(1, len(indices) // _SCALE_SAMPLES)].tolist())
        lengths, before = [], None
        for index, picture in self.frames():
            if before is not None and picture is not None:
                lengths.append(np.percentile(np.linalg.norm(self.flow(before, picture), axis=2), 99))
            before = picture if index in sampled else None
        return nice_scale(max(_LEAST_SCALE_PX, float(np.median(lengths)))) if lengths else 1.0
