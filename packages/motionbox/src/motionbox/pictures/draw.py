"""Pictures of boxes, flow and motion maps: pure functions from arrays to RGB arrays, and the page they are laid out on.

Flow is shown with the colour wheel of the Middlebury benchmark (Baker et al., "A Database and Evaluation Methodology
for Optical Flow", IJCV 2011): hue is direction, saturation is length, white is no motion.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

BACKGROUND: Colour = (18, 20, 26)
PANEL: Colour = (32, 35, 44)
INK: Colour = (236, 238, 242)
MUTED: Colour = (150, 156, 168)
FRAME_BOX: Colour = (0, 224, 255)
CLIP_BOX: Colour = (255, 190, 60)
TRUTH_BOX: Colour = (110, 240, 120)
BORROWED_BOX: Colour = (196, 140, 255)
CENTRE_BOX: Colour = (255, 110, 110)

# Lengths of the six arcs of the wheel: red-yellow, yellow-green, green-cyan, cyan-blue, blue-magenta, magenta-red.
_ARCS = (15, 6, 4, 11, 13, 6)
_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 0, 0))
_HEAT_SHARE, _DIMMED = 0.6, 0.7  # of the colour where an area is strongest, of the frame's brightness elsewhere
_FONT = cv2.FONT_HERSHEY_DUPLEX


def overlay(
    frame: Picture,
    frame_box: Sequence[int] | None,
    clip_box: Sequence[int] | None = None,
    *,
    truth_box: Sequence[float] | None = None,
    colour: Colour = FRAME_BOX,
    scale: float = 1.0,
    dim: float = 0.0,
) -> Picture:
    """Draw boxes on a frame.

    Args:
        frame: (H, W, 3) uint8 RGB.
        frame_box: xyxy pixels before `scale`; None draws none.
        clip_box: The same, drawn dashed.
        truth_box: The same, an annotated box.
        colour: Colour of the frame box.
        scale: Pixels of the picture per pixel of the boxes.
        dim: How much darker the picture is outside the frame box, 0 to 1.

    Returns:
        A new picture of the same shape.
    """
    picture = frame.copy()
    if dim > 0 and frame_box is not None:
        x1, y1, x2, y2 = _corners(frame_box, scale, frame)
        picture = (frame * (1 - dim)).astype(np.uint8)
        picture[y1 : y2 + 1, x1 : x2 + 1] = frame[y1 : y2 + 1, x1 : x2 + 1]
    side = min(frame.shape[:2])
    thickness = 1 if side < 100 else max(2, round(side / 150))  # videos lose the colour of thinner lines
    if clip_box is not None:
        _dashed(picture, _corners(clip_box, scale, frame), CLIP_BOX, thickness)
    if truth_box is not None:
        _rectangle(picture, _corners(truth_box, scale, frame), TRUTH_BOX, thickness)
    if frame_box is not None:
        _rectangle(picture, _corners(frame_box, scale, frame), colour, thickness)
    return picture


def _corners(box: Sequence[float], scale: float, frame: Picture) -> tuple[int, int, int, int]:
    """Return the first and last pixels of a half-open box, kept within the picture."""
    height, width = frame.shape[:2]
    x1, y1 = (round(float(value) * scale) for value in box[:2])
    x2, y2 = (round(float(value) * scale) - 1 for value in box[2:])
    return min(max(x1, 0), width - 1), min(max(y1, 0), height - 1), min(x2, width - 1), min(y2, height - 1)


def _rectangle(picture: Picture, corners: tuple[int, int, int, int], colour: Colour, thickness: int) -> None:
    x1, y1, x2, y2 = corners
    cv2.rectangle(picture, (x1, y1), (x2, y2), (0, 0, 0), thickness + 2)
    cv2.rectangle(picture, (x1, y1), (x2, y2), colour, thickness)


def _dashed(picture: Picture, corners: tuple[int, int, int, int], colour: Colour, thickness: int) -> None:
    x1, y1, x2, y2 = corners
    dash = max(6, 5 * thickness)
    for start, stop in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        length = max(abs(stop[0] - start[0]), abs(stop[1] - start[1]))
        for begin in range(0, max(1, length), 2 * dash):
            ends = [
                tuple(
                    round(a + (b - a) * min(position, length) / max(1, length))
                    for a, b in zip(start, stop, strict=True)
                )
                for position in (begin, begin + dash)
            ]
            for shade, width in (((0, 0, 0), thickness + 2), (colour, thickness)):
                cv2.line(picture, ends[0], ends[1], shade, width)


@lru_cache(maxsize=1)
def _wheel() -> NDArray[np.float64]:
    """Return the wheel's colours, (55, 3), 0..1, starting with red and going towards yellow."""
    colours: list[NDArray[np.float64]] = []
    for length, first, last in zip(_ARCS, _CORNERS[:-1], _CORNERS[1:], strict=True):
        steps = np.floor(255 * np.arange(length) / length)[:, None]
        rising = np.asarray(last) > np.asarray(first)
        falling = np.asarray(last) < np.asarray(first)
        colours.append(np.asarray(first) + steps * rising - steps * falling)
    return np.concatenate(colours) / 255


def flow_to_colour(flow: NDArray[np.floating[Any]], max_px: float) -> Picture:
    """Show flow with the Middlebury colour wheel.

    Args:
        flow: (H, W, 2), (dx, dy) pixels per frame step.
        max_px: Length that is shown fully saturated; longer flow is darkened.

    Returns:
        (H, W, 3) uint8 RGB; white where nothing moves.

    Raises:
        ValueError: `max_px` is not positive.
    """
    if not max_px > 0:
        raise ValueError(f"max_px must be positive, got {max_px!r}")
    wheel = _wheel()
    dx, dy = flow[..., 0] / max_px, flow[..., 1] / max_px
    length = np.hypot(dx, dy)[..., None]
    length = np.where(np.abs(length - 1) < 1e-6, 1, length)  # rounding must not darken the longest flow
    position = (np.arctan2(-dy, -dx) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = np.floor(position).astype(int)
    part = (position - low)[..., None]
    colour = wheel[low] * (1 - part) + wheel[(low + 1) % len(wheel)] * part
    shown = np.where(length <= 1, 1 - length * (1 - colour), colour * 0.75)
    return np.asarray(np.floor(255 * shown), np.uint8)


def nice_scale(value: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten, so that a printed scale reads well; 1 for nothing positive."""
    if not (np.isfinite(value) and value > 0):
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9)))


def map_to_colour(motion_map: NDArray[np.uint8], size_wh: tuple[int, int] | None = None, *, peak: int = 255) -> Picture:
    """Show a motion map, dark to bright.

    Args:
        motion_map: (h, w) uint8 as kept in a store.
        size_wh: Width and height of the picture; None keeps the map's.
        peak: Value that is shown brightest.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    bright = np.rint(np.clip(motion_map * (255 / max(1, peak)), 0, 255)).astype(np.uint8)
    enlarged = bright if size_wh is None else cv2.resize(bright, size_wh, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(cv2.applyColorMap(np.asarray(enlarged, np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1])


def heat_layer(picture: Picture, areas: NDArray[np.uint8], cells_wh: tuple[float, float]) -> Picture:
    """Lay a motion area over its frame: grey and darker where nothing is inside, in the colours of heat where it is.

    Args:
        picture: (H, W, 3) uint8 RGB, the whole frame at any size.
        areas: (h, w) uint8, 0 outside, 255 strongest.
        cells_wh: Width and height of the frame in cells; the last ones may be cut.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = picture.shape[:2]
    whole_wh = (round(areas.shape[1] * width / cells_wh[0]), round(areas.shape[0] * height / cells_wh[1]))
    smooth = cv2.resize(areas, (max(width, whole_wh[0]), max(height, whole_wh[1])), interpolation=cv2.INTER_LINEAR)
    strength = np.asarray(smooth[:height, :width], np.uint8)
    colours = cv2.applyColorMap(np.asarray(90 + strength * np.float32(165 / 255), np.uint8), cv2.COLORMAP_INFERNO)
    grey = picture.mean(axis=2, keepdims=True)
    share = _HEAT_SHARE * (strength[..., None] / np.float32(255))
    dim = (_DIMMED * (0.6 * grey + 0.4 * picture)) * (1 - share)
    return np.asarray(np.rint(dim + share * colours[..., ::-1]), np.uint8)


def wheel_legend(diameter: int, max_px: float) -> Picture:
    """Draw the colour wheel with its scale printed below, on the page's background."""
    words, margin, caption = f"{max_px:g} px/frame", 5, 16
    offsets = (np.arange(diameter) + 0.5) / diameter * 2 - 1
    dx, dy = np.meshgrid(offsets, offsets)
    wheel = flow_to_colour(np.dstack([dx, dy]), 1.0)
    cover = np.clip((1 - np.hypot(dx, dy)) * diameter / 2, 0, 1)[..., None]
    width = max(diameter, text_width(words, 11)) + 2 * margin
    page = np.full((diameter + 2 * margin + caption, width, 3), BACKGROUND, np.uint8)
    left = (width - diameter) // 2
    inner = page[margin : margin + diameter, left : left + diameter]
    inner[:] = (wheel * cover + inner * (1 - cover)).astype(np.uint8)
    text(page, words, (width // 2, page.shape[0] - caption // 2 - 1), 11, INK, align="centre")
    return page


def text(
    picture: Picture,
    words: str,
    position: tuple[int, int],
    height_px: int,
    colour: Colour = INK,
    *,
    align: Literal["left", "centre", "right"] = "left",
    max_width_px: int | None = None,
) -> None:
    """Write one line into a picture, in place.

    Args:
        picture: (H, W, 3) uint8 RGB.
        words: Shortened in the middle where they are wider than `max_width_px`.
        position: x by `align`, y of the line's middle.
        height_px: Height of a capital letter, roughly.
        colour: RGB.
        align: What `position` x means.
        max_width_px: Room for the words; None is unlimited.
    """
    scale = height_px / 22
    while max_width_px is not None and len(words) > 4 and text_width(words, height_px) > max_width_px:
        half = (len(words) - 2) // 2
        words = f"{words[: half - 1].rstrip('.')}...{words[-half + 2 :].lstrip('.')}" if half > 3 else words[: half + 1]
    width = text_width(words, height_px)
    x = position[0] - {"left": 0, "centre": width // 2, "right": width}[align]
    baseline = position[1] + round(height_px * 0.48)
    cv2.putText(picture, words, (x, baseline), _FONT, scale, colour, 1, cv2.LINE_AA)


def text_width(words: str, height_px: int) -> int:
    """Return the width in pixels of a line that `text` would write."""
    return int(cv2.getTextSize(words, _FONT, height_px / 22, 1)[0][0])


def tag(picture: Picture, words: str, colour: Colour, height_px: int, *, right: bool = False) -> None:
    """Write a line on a darkened ground into a picture's upper left (or right) corner, in place."""
    width = min(text_width(words, height_px) + 10, picture.shape[1] - 12)
    left = picture.shape[1] - 6 - width if right else 6
    picture[6 : 13 + height_px, left : left + width] //= 3
    text(picture, words, (left + 5, 10 + height_px // 2), height_px, colour, max_width_px=width - 10)


def fit(picture: Picture, size_wh: tuple[int, int]) -> Picture:
    """Scale a picture into a frame of a size, centred on the panel colour, proportions kept."""
    width, height = size_wh
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner_wh = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    inner = picture if inner_wh == picture.shape[1::-1] else cv2.resize(picture, inner_wh, interpolation=method)
    page = np.full((height, width, 3), PANEL, np.uint8)
    left, top = (width - inner_wh[0]) // 2, (height - inner_wh[1]) // 2
    page[top : top + inner_wh[1], left : left + inner_wh[0]] = inner
    return page


def message(size_wh: tuple[int, int], lines: Sequence[str]) -> Picture:
    """Draw an empty panel that says why it is empty."""
    width, height = size_wh
    page = np.full((height, width, 3), PANEL, np.uint8)
    for row, line in enumerate(lines):
        y = height // 2 + round((row - (len(lines) - 1) / 2) * 24)
        text(page, line, (width // 2, y), 14 if row == 0 else 11, INK if row == 0 else MUTED, align="centre",
             max_width_px=width - 20)  # fmt: skip
    return page


def grid(panels: Sequence[Sequence[Picture]], gap_px: int = 8) -> Picture:
    """Lay pictures out in rows and columns; columns are as wide as their widest picture, rows as tall."""
    widths = [max(row[k].shape[1] for row in panels if k < len(row)) for k in range(max(map(len, panels)))]
    heights = [max(picture.shape[0] for picture in row) for row in panels]
    page = np.full(
        (sum(heights) + gap_px * (len(heights) - 1), sum(widths) + gap_px * (len(widths) - 1), 3), 0, np.uint8
    )
    page[:] = BACKGROUND
    top = 0
    for row, height in zip(panels, heights, strict=True):
        left = 0
        for picture, width in zip(row, widths, strict=False):
            page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            left += width + gap_px
        top += height + gap_px
    return page


def legend(entries: Sequence[tuple[str, Colour, bool]], height_px: int = 26) -> Picture:
    """Draw a legend of box colours: (name, colour, dashed) from left to right."""
    widths = [34 + text_width(name, 12) + 18 for name, _, _ in entries]
    page = np.full((height_px, max(1, sum(widths)), 3), BACKGROUND, np.uint8)
    x = 0
    for (name, colour, dashed), width in zip(entries, widths, strict=True):
        y = height_px // 2
        for begin, end in ((0, 10), (16, 26)) if dashed else ((0, 26),):
            cv2.rectangle(page, (x + begin, y - 1), (x + end, y + 1), colour, -1)
        text(page, name, (x + 34, y), 12, MUTED)
        x += width
    return page
