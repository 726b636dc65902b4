"""Clips of a store as pictures: the video with its boxes beside flow and motion map, contact sheets, comparisons.

What is missing is said in its place: a video gone since the extraction, a store without motion maps, a failed clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox import boxes as bx
from motionbox import draw
from motionbox.errors import ClipError
from motionbox.frames import working_size
from motionbox.video import read_colour_frames

if TYPE_CHECKING:
    from motionbox.config import ExtractConfig
    from motionbox.evaluate import AnnotatedClip
    from motionbox.store import Store

Picture = NDArray[np.uint8]
Moment = tuple[int, Picture | None, NDArray[np.float32] | None]
Panel = Literal["boxes", "flow", "map"]
PANELS: tuple[Panel, ...] = ("boxes", "flow", "map")

_TITLE_PX, _LABEL_PX, _FOOT_PX, _GAP_PX = 40, 26, 44, 10
_SCALE_SAMPLES = 24  # pairs of frames that the flow's colour scale is taken from
_BOX_COLOURS = {
    bx.BoxSource.OWN: draw.FRAME_BOX,
    bx.BoxSource.BORROWED: draw.BORROWED_BOX,
    bx.BoxSource.CENTRE: draw.CENTRE_BOX,
}


@dataclass(frozen=True)
class ClipBoxes:
    """What one store says about one clip.

    Attributes:
        name: What to call the store, e.g. its preset.
        row: The clip's row of `Store.clips()`.
        times: float64 (T,), seconds.
        boxes: int16 (T, 4), stabilised frame boxes in display pixels.
        sources: uint8 (T,), a `boxes.BoxSource` each.
        maps: uint8 (T, h, w), or None where the store keeps none.
        config: How they were made.
        video: The video, frame folder or tar.
    """

    name: str
    row: dict[str, Any]
    times: NDArray[np.float64]
    boxes: NDArray[np.int16]
    sources: NDArray[np.uint8]
    maps: NDArray[np.uint8] | None
    config: ExtractConfig
    video: Path

    @property
    def clip_box(self) -> list[int] | None:
        """Return the clip box, None for a failed clip."""
        values = [self.row[side] for side in ("x1", "y1", "x2", "y2")]
        return None if None in values else values


@dataclass(frozen=True)
class View:
    """What is drawn: one clip in one or more stores.

    Attributes:
        clips: The same clip as each store has it; the first one's video and flow are shown.
        truth: Annotated boxes of the clip, or None.
        panels: What is shown beside each other.
        height_px: Height of a panel.
        max_seconds: Longer clips are cut off.
    """

    clips: Sequence[ClipBoxes]
    truth: AnnotatedClip | None = None
    panels: Sequence[Panel] = PANELS
    height_px: int = 360
    max_seconds: float = 20.0

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


def load_clip(store: Store, clip_id: str, *, data_root: Path | None = None, name: str | None = None) -> ClipBoxes:
    """Read what a store holds about a clip.

    Args:
        store: An open store.
        clip_id: The clip.
        data_root: Where the videos are now; None: where they were at extraction.
        name: What to call the store; None: its preset.

    Raises:
        StoreError: The store has no such clip.
    """
    times, boxes = store.frame_times(clip_id), store.frame_boxes(clip_id)
    clips = store.clips()
    row = clips.slice(clips.column("clip_id").to_pylist().index(clip_id), 1).to_pylist()[0]
    config = store.config()
    root = Path(store.run_info()["data_root"]) if data_root is None else data_root
    return ClipBoxes(
        name=name or config.preset,
        row=row,
        times=times,
        boxes=boxes,
        sources=store.frame_sources(clip_id),
        maps=store.motion_maps(clip_id) if store.info["motion_maps"] and len(times) else None,
        config=config,
        video=root / row["path"],
    )


@dataclass
class _Footage:
    """The frames of a view's video, and flow between them, as far as they can be had.

    Attributes:
        problem: Why there are no frames (any more); empty while all is well.
        max_px: Flow of this length is fully saturated.
    """

    view: View
    problem: str = ""
    max_px: float = 1.0
    _estimate: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        clip = self.view.first
        if len(clip.times) == 0:
            self.problem = "no frames"
        elif not clip.video.exists():
            self.problem = "video not found"
        elif "flow" in self.view.panels:
            from motionbox.flow import create_flow_estimator

            self._estimate = create_flow_estimator(clip.config.flow)
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
                if self._estimate is not None and before[1] is not None:
                    flow = None if entry[1] is None else self.flow(before[1], entry[1])
                yield *before, flow
            before = entry
        if before is not None:
            yield *before, None if before[1] is None else flow

    def _decode(self) -> Iterator[tuple[float, Picture]]:
        row, (width, height) = self.view.first.row, self.view.panel_wh
        frame_fps = row.get("frame_fps")
        try:
            for frame in read_colour_frames(
                self.view.first.video,
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
        flow: NDArray[np.float32] = self._estimate(before, after)
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
        return draw.nice_scale(float(np.median(lengths))) if lengths else 1.0


def render(view: View) -> Iterator[Picture]:
    """Draw a view frame by frame.

    Yields:
        (H, W, 3) uint8 RGB pages, all of one size.
    """
    footage = _Footage(view)
    for moment in footage.moments():
        yield _page(view, footage, *moment)


def page_size(view: View) -> tuple[int, int]:
    """Return the (width, height) in pixels of the pages of a view, both even."""
    num_panels = sum(1 if panel == "flow" else len(view.clips) for panel in view.panels)
    width = num_panels * view.panel_wh[0] + (num_panels + 1) * _GAP_PX
    height = _TITLE_PX + view.panel_wh[1] + _LABEL_PX + _FOOT_PX
    return width + width % 2, height + height % 2


def still(view: View, at_seconds: float | None = None) -> Picture:
    """Draw one page of a view: at a time counted from the clip's start, or where the motion is strongest."""
    indices, clip = view.frame_indices, view.first
    if at_seconds is None:
        energy = clip.maps.mean(axis=(1, 2))[indices] if clip.maps is not None else np.zeros(len(indices))
        lasting = np.convolve(energy, np.ones(5) / 5, mode="same")  # a short spike makes no telling picture
        chosen = int(np.argmax(lasting)) if energy.any() else len(indices) // 2
    else:
        offsets = clip.times[indices] - clip.times[0] if len(clip.times) else np.zeros(1)
        chosen = int(np.argmin(np.abs(offsets - at_seconds)))
    for position, page in enumerate(render(view)):
        if position == chosen:
            return page
    raise AssertionError("a view has at least one page")


def contact_sheet(views: Sequence[View], num_moments: int = 6, thumb_height_px: int = 150) -> Picture:
    """Draw clips as rows of evenly spaced moments with their boxes; one clip alone with its flow and maps below.

    Args:
        views: What to draw.
        num_moments: Pictures per row.
        thumb_height_px: Height of one picture.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    strips = [_strip(view, len(views) == 1, num_moments, thumb_height_px) for view in views]
    page = draw.grid([[strip] for strip in strips])
    key = draw.legend(_legend_entries(views))
    width = max(page.shape[1], key.shape[1])
    sheet = np.full((page.shape[0] + 2 * _GAP_PX + key.shape[0], width + 2 * _GAP_PX, 3), draw.BACKGROUND, np.uint8)
    sheet[_GAP_PX : _GAP_PX + page.shape[0], _GAP_PX : _GAP_PX + page.shape[1]] = page
    sheet[-key.shape[0] - _GAP_PX // 2 : -(_GAP_PX // 2), _GAP_PX : _GAP_PX + key.shape[1]] = key
    return sheet


def _strip(view: View, alone: bool, num_moments: int, height_px: int) -> Picture:
    """Draw a clip's title and, below, its moments: one column each, one row per panel."""
    panels: Sequence[Panel] = (
        view.panels if alone else [panel for panel in view.panels if panel == "boxes"] or PANELS[:1]
    )
    footage = _Footage(replace(view, panels=panels, height_px=2 * height_px))
    size = round(view.panel_wh[0] * height_px / view.panel_wh[1]), height_px
    indices = view.frame_indices
    chosen = {int(indices[k]) for k in np.linspace(0, len(indices) - 1, num_moments).round().astype(int)}
    columns = [
        [draw.fit(panel, size) for _, panel in _pictures(footage.view, footage, *moment)]
        for moment in footage.moments()
        if moment[0] in chosen
    ]
    page = draw.grid([[column[k] for column in columns] for k in range(len(columns[0]))], 6)
    title = np.full((20, page.shape[1], 3), draw.BACKGROUND, np.uint8)
    draw.text(title, _title(view), (1, 9), 12, draw.INK, max_width_px=page.shape[1])
    return np.concatenate([title, page])


def _title(view: View) -> str:
    row = view.first.row
    labels = [str(row[name]) for name in ("verb", "noun", "label", "narration") if row.get(name)]
    words = " ".join(labels)
    status = "" if row["status"] == "ok" else f"   [{row['status']}{': ' + row['reason'] if row['reason'] else ''}]"
    return f"{row['clip_id']}{'   ' + words if words else ''}{status}"


def _truth_at(view: View, index: int) -> NDArray[np.float64] | None:
    """Return the annotated box of a frame: number n is the clip's frame at position n - 1."""
    if view.truth is None:
        return None
    at = np.searchsorted(view.truth.numbers, index + 1)
    if at == len(view.truth.numbers) or view.truth.numbers[at] != index + 1:
        return None
    box = view.truth.boxes[at]
    return box if bool(bx.has_box(box)) else None


def _pictures(
    view: View, footage: _Footage, index: int, picture: Picture | None, flow: NDArray[np.float32] | None
) -> list[tuple[str, Picture]]:
    """Return (label, panel) for one frame: boxes of every store, flow, map of every store."""
    found: list[tuple[str, Picture]] = []
    for panel in view.panels:
        if panel == "flow":
            found.append((f"optical flow ({view.first.config.flow.method})", _flow_panel(view, footage, flow)))
            continue
        for clip in view.clips:
            suffix = f" ({clip.name})" if len(view.clips) > 1 else ""
            if panel == "boxes":
                found.append((f"boxes{suffix}", _box_panel(view, footage, clip, index, picture)))
            else:
                found.append((f"motion map{suffix}", _map_panel(view, clip, index)))
    return found


def _nearest(clip: ClipBoxes, view: View, index: int) -> int | None:
    """Return the frame of a clip nearest in time to a frame of the view's first one."""
    if len(clip.times) == 0:
        return None
    return int(np.argmin(np.abs(clip.times - view.first.times[index])))


def _box_panel(view: View, footage: _Footage, clip: ClipBoxes, index: int, picture: Picture | None) -> Picture:
    if picture is None:
        lines = [footage.problem or "frame not decoded", clip.video.name]
        if footage.problem == "no frames":
            lines = ["no frames", *str(clip.row["reason"]).split(": ", 1)]
        picture = draw.message(view.panel_wh, lines)
    else:
        picture = draw.fit(picture, view.panel_wh)
    here = _nearest(clip, view, index) if len(view.first.times) else None
    if here is None:
        return picture
    scale = view.panel_wh[0] / clip.row["width"]
    colour = _BOX_COLOURS[bx.BoxSource(int(clip.sources[here]))]
    truth = _truth_at(view, index)
    boxed = draw.overlay(
        picture, clip.boxes[here].tolist(), clip.clip_box, truth_box=None if truth is None else truth.tolist(),
        colour=colour, scale=scale, dim=0.25,
    )  # fmt: skip
    if truth is not None:
        words = f"IoU {float(bx.iou(clip.boxes[here], truth)):.2f}"
        width = draw.text_width(words, 13)
        boxed[6:26, boxed.shape[1] - width - 16 : boxed.shape[1] - 6] //= 3
        draw.text(boxed, words, (boxed.shape[1] - 11, 16), 13, draw.TRUTH_BOX, align="right")
    return boxed


def _flow_panel(view: View, footage: _Footage, flow: NDArray[np.float32] | None) -> Picture:
    if flow is None:
        return draw.message(view.panel_wh, ["no flow", footage.problem or "a single frame"])
    colours = draw.flow_to_colour(flow, footage.max_px)
    return np.asarray(cv2.resize(colours, view.panel_wh, interpolation=cv2.INTER_LINEAR), np.uint8)


def _map_panel(view: View, clip: ClipBoxes, index: int) -> Picture:
    here = _nearest(clip, view, index) if len(view.first.times) else None
    if clip.maps is None or here is None:
        reason = "this store keeps none" if here is not None else "no frames"
        return draw.message(view.panel_wh, ["no motion maps", reason])
    heat = draw.map_to_colour(clip.maps[here], view.panel_wh)
    scale = view.panel_wh[0] / clip.row["width"]
    return draw.overlay(heat, clip.boxes[here].tolist(), colour=_BOX_COLOURS[bx.BoxSource(int(clip.sources[here]))],
                        scale=scale)  # fmt: skip


def _legend_entries(views: Sequence[View]) -> list[tuple[str, draw.Colour, bool]]:
    sources = np.unique(np.concatenate([clip.sources for view in views for clip in view.clips]))
    names = {
        bx.BoxSource.OWN: "frame box",
        bx.BoxSource.BORROWED: "frame box (from its neighbours)",
        bx.BoxSource.CENTRE: "centre half (no motion found)",
    }
    entries = [(names[source], _BOX_COLOURS[source], False) for source in bx.BoxSource if source in sources]
    entries.append(("clip box", draw.CLIP_BOX, True))
    if any(view.truth is not None for view in views):
        entries.append(("annotated", draw.TRUTH_BOX, False))
    return entries


def _page(
    view: View, footage: _Footage, index: int, picture: Picture | None, flow: NDArray[np.float32] | None
) -> Picture:
    """Lay one moment out: title, panels with their labels, legend, wheel and time line."""
    pictures = _pictures(view, footage, index, picture, flow)
    width, height = view.panel_wh
    page_width, page_height = page_size(view)
    page = np.full((page_height, page_width, 3), draw.BACKGROUND, np.uint8)
    seconds = view.first.times[index] - view.first.times[0] if len(view.first.times) else 0.0
    clock = f"{seconds:.2f} s"
    draw.text(page, clock, (page_width - _GAP_PX, _TITLE_PX // 2), 15, draw.MUTED, align="right")
    room = page_width - 3 * _GAP_PX - draw.text_width("00:00.00 s", 15)
    draw.text(page, _title(view), (_GAP_PX, _TITLE_PX // 2), 15, draw.INK, max_width_px=room)
    for column, (label, panel) in enumerate(pictures):
        left = _GAP_PX + column * (width + _GAP_PX)
        page[_TITLE_PX : _TITLE_PX + height, left : left + width] = panel
        draw.text(page, label, (left + 1, _TITLE_PX + height + _LABEL_PX // 2), 13, draw.MUTED, max_width_px=width)
        if label.startswith("optical flow") and flow is not None:
            _stamp_wheel(page, left + width, _TITLE_PX + height, footage.max_px)
    key = draw.legend(_legend_entries([view]))[:, : page_width - 2 * _GAP_PX]
    top = _TITLE_PX + height + _LABEL_PX
    page[top : top + key.shape[0], _GAP_PX : _GAP_PX + key.shape[1]] = key
    _time_line(page, view, index, top + key.shape[0] + 6, page_width)
    return page


def _stamp_wheel(page: Picture, right: int, bottom: int, max_px: float) -> None:
    wheel = draw.wheel_legend(64, max_px)
    height, width = wheel.shape[:2]
    page[bottom - height - 6 : bottom - 6, right - width - 6 : right - 6] = wheel


def _time_line(page: Picture, view: View, index: int, y: int, page_width: int) -> None:
    """Draw a bar whose colours say where each frame's box comes from, with a mark at the frame shown."""
    indices = view.frame_indices
    left, right = _GAP_PX, page_width - _GAP_PX
    if len(view.first.times) == 0:
        return
    edges = np.linspace(left, right, len(indices) + 1).round().astype(int)
    for position, frame in enumerate(indices):
        colour = _BOX_COLOURS[bx.BoxSource(int(view.first.sources[frame]))]
        shade = tuple(round(0.45 * value) for value in colour) if frame > index else colour
        page[y : y + 4, edges[position] : edges[position + 1]] = shade
    here = int(edges[int(np.searchsorted(indices, index))])
    page[y - 3 : y + 7, max(left, here - 1) : here + 2] = draw.INK
