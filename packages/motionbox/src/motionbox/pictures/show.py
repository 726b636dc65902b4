"""Clips of a store as pictures: the video with its boxes beside flow and motion map, contact sheets, comparisons.

What is missing is said in its place: a video gone since the extraction, a store without motion maps, a failed clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.motion import boxes as bx
from motionbox.pictures import draw
from motionbox.pictures.footage import ClipBoxes, Footage, Panel, Picture, View

_TITLE_PX, _LABEL_PX, _FOOT_PX, _GAP_PX = 40, 26, 44, 10
_BOX_COLOURS = {
    bx.BoxSource.OWN: draw.FRAME_BOX,
    bx.BoxSource.BORROWED: draw.BORROWED_BOX,
    bx.BoxSource.CENTRE: draw.CENTRE_BOX,
}


def render(view: View) -> Iterator[Picture]:
    """Draw a view frame by frame.

    Yields:
        (H, W, 3) uint8 RGB pages, all of one size.
    """
    footage = Footage(view)
    for moment in footage.moments():
        yield _page(view, footage, *moment)


def panels_only(view: View) -> Iterator[Picture]:
    """Draw a view's panels beside each other frame by frame, without words around them.

    Yields:
        (H, W, 3) uint8 RGB, all of one size.
    """
    footage = Footage(view)
    for moment in footage.moments():
        yield draw.grid([[panel for _, panel in _pictures(view, footage, *moment)]], 4)


def play(views: Sequence[View], fps: float) -> Iterator[Picture]:
    """Draw views one after the other, each at its own speed.

    Args:
        views: What to draw.
        fps: Rate of the result; pages are repeated or left out to fit it.

    Yields:
        (H, W, 3) uint8 RGB, all of the size of the largest page.
    """
    sizes = [page_size(view) for view in views]
    width, height = max(size[0] for size in sizes), max(size[1] for size in sizes)
    for view, size in zip(views, sizes, strict=True):
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        ratio = fps / view.fps
        for index, page in enumerate(render(view)):
            canvas = np.full((height, width, 3), draw.BACKGROUND, np.uint8)
            canvas[top : top + size[1], left : left + size[0]] = page
            for _ in range(round((index + 1) * ratio) - round(index * ratio)):
                yield canvas


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
    footage = Footage(view)
    for position, moment in enumerate(footage.moments()):
        if position == chosen:
            return _page(view, footage, *moment)
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
    width = max(strip.shape[1] for strip in strips)
    page = draw.grid([[_titled(_title(view), strip, width)] for view, strip in zip(views, strips, strict=True)])
    key = draw.legend(_legend_entries(views))
    width = max(page.shape[1], key.shape[1])
    sheet = np.full((page.shape[0] + 2 * _GAP_PX + key.shape[0], width + 2 * _GAP_PX, 3), draw.BACKGROUND, np.uint8)
    sheet[_GAP_PX : _GAP_PX + page.shape[0], _GAP_PX : _GAP_PX + page.shape[1]] = page
    sheet[-key.shape[0] - _GAP_PX // 2 : -(_GAP_PX // 2), _GAP_PX : _GAP_PX + key.shape[1]] = key
    return sheet


def _strip(view: View, alone: bool, num_moments: int, height_px: int) -> Picture:
    """Draw a clip's moments: one column each, one row per panel; several rows are named, flow has its wheel."""
    panels: Sequence[Panel] = view.panels if alone else [_strip_panel(view)]
    footage = Footage(replace(view, panels=panels, height_px=2 * height_px))
    size = round(view.panel_wh[0] * height_px / view.panel_wh[1]), height_px
    indices = view.frame_indices
    chosen = {int(indices[k]) for k in np.linspace(0, len(indices) - 1, num_moments).round().astype(int)}
    moments = [moment for moment in footage.moments() if moment[0] in chosen]
    columns = [_pictures(footage.view, footage, *moment) for moment in moments]
    rows = [[draw.fit(column[k][1], size) for column in columns] for k in range(len(columns[0]))]
    for row, (label, _) in zip(rows, columns[0], strict=True):
        if len(rows) > 1:
            draw.tag(row[0], label, draw.INK, 11)
        if label.startswith("optical flow") and any(flow is not None for *_, flow in moments):
            _stamp_wheel(row[-1], *size, footage.max_px, diameter=36)
    return draw.grid(rows, 6)


def _strip_panel(view: View) -> Panel:
    """Return the panel that stands for a clip among others: areas with boxes, where there are areas to be shown."""
    shown = all(clip.areas is not None for clip in view.clips) and "areas" in view.panels
    return "areas" if shown else "boxes"


def _titled(words: str, strip: Picture, width: int) -> Picture:
    """Put a title above a strip, which may be as wide as the whole sheet."""
    page = np.full((20 + strip.shape[0], width, 3), draw.BACKGROUND, np.uint8)
    page[20:, : strip.shape[1]] = strip
    draw.text(page, words, (1, 9), 12, draw.INK, max_width_px=width)
    return page


def _title(view: View) -> str:
    row = view.first.row
    labels = [str(row[name]) for name in ("verb", "noun", "label", "narration") if row.get(name)]
    words = " ".join(labels)
    status = "" if row["status"] == "ok" else f"   [{row['status']}{': ' + row['reason'] if row['reason'] else ''}]"
    return f"{row['clip_id']}{'   ' + words if words else ''}{status}"


def _truth_at(view: View, index: int) -> NDArray[np.float64] | None:
    """Return the annotated box of a frame: of the annotated frame nearest in time, within half its duration."""
    if view.truth is None or len(view.truth.numbers) == 0:
        return None
    fps = view.truth_fps or view.first.row["fps"]
    offsets = (view.truth.numbers - 1) / fps - (view.first.times[index] - view.first.times[0])
    nearest = int(np.argmin(np.abs(offsets)))
    box = view.truth.boxes[nearest]
    return box if abs(offsets[nearest]) <= 0.5 / fps and bool(bx.has_box(box)) else None


def _pictures(
    view: View, footage: Footage, index: int, picture: Picture | None, flow: NDArray[np.float32] | None
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
            elif panel == "areas":
                found.append((f"motion areas{suffix}", _area_panel(view, clip, index, picture)))
            else:
                found.append((f"motion map{suffix}", _map_panel(view, clip, index)))
    return found


def _nearest(clip: ClipBoxes, view: View, index: int) -> int | None:
    """Return the frame of a clip nearest in time to a frame of the view's first one."""
    if len(clip.times) == 0:
        return None
    return int(np.argmin(np.abs(clip.times - view.first.times[index])))


def _box_panel(view: View, footage: Footage, clip: ClipBoxes, index: int, picture: Picture | None) -> Picture:
    if picture is None:
        return _boxed(view, clip, index, _no_picture(view, footage, clip), dim=0.0)  # words stay as bright as they are
    return _boxed(view, clip, index, draw.fit(picture, view.panel_wh), dim=0.25)


def _area_panel(view: View, clip: ClipBoxes, index: int, picture: Picture | None) -> Picture:
    here = _nearest(clip, view, index) if len(view.first.times) else None
    if clip.areas is None or here is None:
        return draw.message(view.panel_wh, ["no motion areas", _why_no_maps(clip, here)])
    ground = draw.message(view.panel_wh, [""]) if picture is None else draw.fit(picture, view.panel_wh)
    return _boxed(view, clip, index, draw.heat_layer(ground, clip.areas[here], clip.cells_wh), dim=0.0)


def _no_picture(view: View, footage: Footage, clip: ClipBoxes) -> Picture:
    lines = [footage.problem or "frame not decoded", clip.video.name]
    if footage.problem == "no frames":
        lines = ["no frames", *str(clip.row["reason"]).split(": ", 1)]
    return draw.message(view.panel_wh, lines)


def _boxed(view: View, clip: ClipBoxes, index: int, picture: Picture, *, dim: float) -> Picture:
    """Draw a clip's boxes and the annotated one on a panel."""
    here = _nearest(clip, view, index) if len(view.first.times) else None
    if here is None:
        return picture
    scale = view.panel_wh[0] / clip.row["width"]
    truth = _truth_at(view, index)
    box = clip.boxes[here].tolist() if bx.has_box(clip.boxes[here]) else None
    boxed = draw.overlay(
        picture, box, clip.clip_box, truth_box=None if truth is None else truth.tolist(),
        colour=_BOX_COLOURS[bx.BoxSource(int(clip.sources[here]))], scale=scale, dim=dim,
    )  # fmt: skip
    if truth is not None:
        draw.tag(boxed, f"IoU {float(bx.iou(clip.boxes[here], truth)):.2f}", draw.TRUTH_BOX, 13, right=True)
    return boxed


def _why_no_maps(clip: ClipBoxes, here: int | None) -> str:
    if here is None:
        return "no frames"
    return "a single frame" if len(clip.times) == 1 else "this store keeps none"


def _flow_panel(view: View, footage: Footage, flow: NDArray[np.float32] | None) -> Picture:
    if flow is None:
        return draw.message(view.panel_wh, ["no flow", footage.problem or "a single frame"])
    colours = draw.flow_to_colour(flow, footage.max_px)
    return np.asarray(cv2.resize(colours, view.panel_wh, interpolation=cv2.INTER_LINEAR), np.uint8)


def _map_panel(view: View, clip: ClipBoxes, index: int) -> Picture:
    here = _nearest(clip, view, index) if len(view.first.times) else None
    if clip.maps is None or here is None:
        return draw.message(view.panel_wh, ["no motion maps", _why_no_maps(clip, here)])
    heat = draw.map_to_colour(clip.maps[here], view.panel_wh, peak=clip.map_peak)
    scale = view.panel_wh[0] / clip.row["width"]
    box = clip.boxes[here].tolist() if bx.has_box(clip.boxes[here]) else None
    return draw.overlay(heat, box, colour=_BOX_COLOURS[bx.BoxSource(int(clip.sources[here]))],
                        scale=scale)  # fmt: skip


def _legend_entries(views: Sequence[View]) -> list[tuple[str, draw.Colour, bool]]:
    sources = np.unique(np.concatenate([clip.sources for view in views for clip in view.clips]))
    names = {
        bx.BoxSource.OWN: "frame box",
        bx.BoxSource.BORROWED: "frame box (from its neighbours)",
        bx.BoxSource.CENTRE: "centre half (no motion found)",
    }
    entries = [(names[source], _BOX_COLOURS[source], False) for source in bx.BoxSource if source in sources]
    if any(clip.clip_box is not None for view in views for clip in view.clips):
        entries.append(("clip box", draw.CLIP_BOX, True))
    if any(view.truth is not None for view in views):
        entries.append(("annotated", draw.TRUTH_BOX, False))
    return entries


def _page(
    view: View, footage: Footage, index: int, picture: Picture | None, flow: NDArray[np.float32] | None
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


def _stamp_wheel(page: Picture, right: int, bottom: int, max_px: float, diameter: int = 64) -> None:
    wheel = draw.wheel_legend(diameter, max_px)
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
