"""Guidances made of others: areas at random places, areas of another clip, and areas made worse by known steps.

The first two look right and say nothing: they keep what a guidance has besides its place, how large its areas are,
their shape, how they move over the clip. The last say how good areas have to be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from motionbox.errors import InputError
from motionbox.motion import boxes as bx
from motionbox.store import Store
from motionbox.store.areas.blocks import BLOCK_FRAMES, Areas
from motionbox.store.writing.guidance_writer import GuidanceWriter


def write_random(store: Store, writer: GuidanceWriter, *, like: str, seed: int) -> int:
    """Write another guidance's areas and boxes, each clip's moved by one random distance over all its frames.

    Areas leave the frame on one side and come back on the other, so that every frame keeps its cells. Boxes move
    together, within what their union leaves of the frame.

    Args:
        store: The store.
        writer: Writes the new guidance.
        like: The source that is moved.
        seed: Seed of the distances; a clip's depends on it and on the clip's id alone.

    Returns:
        Number of clips.
    """
    names = _guided(store, like)
    for clip_id in names:
        height, width = store.grid_hw(clip_id)
        rng = _generator(clip_id, seed)
        _write_moved(store, writer, clip_id, like, (int(rng.integers(height)), int(rng.integers(width))), 0.0)
    return len(names)


def write_worse(store: Store, writer: GuidanceWriter, *, like: str, shift: float, shrink: float, seed: int) -> int:
    """Write another guidance's areas and boxes made worse: each clip's moved into a random direction, and smaller.

    The distance is the same in all frames of a clip. Areas leave the frame on one side and come back on the other;
    boxes move within what their union leaves of the frame.

    Args:
        store: The store.
        writer: Writes the new guidance.
        like: The source that is made worse.
        shift: How far, in extents: the root of the clip's mean area, counted in cells; at least 0.
        shrink: Share of an area's cells that it loses, those farthest from its centre; below 1. One cell is left.
        seed: Seed of the directions; a clip's depends on it and on the clip's id alone.

    Returns:
        Number of clips.

    Raises:
        InputError: `shift` or `shrink` is out of range.
    """
    if not shift >= 0 or not 0 <= shrink < 1:
        raise InputError(f"shift must be at least 0 and shrink at least 0 and below 1, got {shift:g} and {shrink:g}")
    names = _guided(store, like)
    for clip_id in names:
        direction = _generator(clip_id, seed).uniform(0, 2 * np.pi)
        distance = shift * _extent(store, clip_id, like)
        cells = (round(distance * np.sin(direction)), round(distance * np.cos(direction)))
        _write_moved(store, writer, clip_id, like, cells, shrink)
    return len(names)


def _generator(clip_id: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, *hashlib.sha256(clip_id.encode(errors="surrogatepass")).digest()[:8]])


def _extent(store: Store, clip_id: str, like: str) -> float:
    """Return the root of a clip's mean area over the frames that have one, in cells."""
    counts = np.concatenate(
        [
            np.count_nonzero(store.motion_areas(clip_id, frames, source=like), axis=(1, 2))
            for frames in _blocks(len(store.frame_times(clip_id)))
        ]
    )
    return float(np.sqrt(counts[counts > 0].mean()))


def _write_moved(
    store: Store, writer: GuidanceWriter, clip_id: str, like: str, cells: tuple[int, int], shrink: float
) -> None:
    """Write a clip's areas and boxes, moved by so many cells (down, right) and without a share of their cells."""
    cells_wh, frame_wh = store.frame_cells_wh(clip_id), store.frame_size(clip_id)
    shift_px = np.array([cells[1] * frame_wh[0] / cells_wh[0], cells[0] * frame_wh[1] / cells_wh[1]])
    boxes = moved_boxes(shrunk_boxes(store.frame_boxes(clip_id, source=like), shrink), shift_px, frame_wh)
    writer.add(clip_id, boxes, _moved(store, clip_id, like, cells, shrink, len(boxes)))


def _moved(store: Store, clip_id: str, like: str, cells: tuple[int, int], shrink: float, count: int) -> Iterator[Areas]:
    for frames in _blocks(count):
        areas = store.motion_areas(clip_id, frames, source=like)
        yield np.roll(np.stack([shrunk_area(area, shrink) for area in areas]), cells, axis=(1, 2))


def shrunk_area(area: Areas, share: float) -> Areas:
    """Return an area without a share of its cells, those farthest from its centre; one that has cells keeps one.

    Args:
        area: uint8 (h, w), strengths.
        share: At least 0 and below 1.
    """
    rows, columns = np.nonzero(area)
    kept = max(1, round((1 - share) * len(rows)))
    if kept >= len(rows):
        return area
    distance = np.hypot(rows - rows.mean(), columns - columns.mean())
    near = np.argsort(distance, kind="stable")[:kept]
    smaller = np.zeros_like(area)
    smaller[rows[near], columns[near]] = area[rows[near], columns[near]]
    return smaller


def shrunk_boxes(boxes: npt.NDArray[np.int32], share: float) -> npt.NDArray[np.int32]:
    """Return boxes without a share of their area, about their centres; (T, 4) xyxy pixels, -1 rows stay."""
    size = boxes[:, 2:] - boxes[:, :2]
    kept = np.maximum(1, np.round(size * np.sqrt(1 - share))).astype(np.int32)
    low = boxes[:, :2] + (size - kept) // 2
    smaller = np.concatenate([low, low + kept], axis=1)
    return np.where(bx.has_box(boxes)[:, None], smaller, -1).astype(np.int32)


def moved_boxes(
    boxes: npt.NDArray[np.int32], shift_px: npt.NDArray[np.float64], frame_wh: tuple[int, int]
) -> npt.NDArray[np.int32]:
    """Return the boxes of a clip moved together, round and round within what their union leaves of the frame.

    Args:
        boxes: (T, 4) xyxy pixels inside the frame; -1 rows stay.
        shift_px: To the right and down.
        frame_wh: Width and height of the frame.

    Returns:
        int32 (T, 4), of the same sizes and places to each other, inside the frame.
    """
    union = bx.union_box(boxes)
    room = np.array(frame_wh) - (union[2:] - union[:2]) + 1
    moved = boxes + np.tile((union[:2] + np.round(shift_px).astype(np.int64)) % room - union[:2], 2)
    return np.where(bx.has_box(boxes)[:, None], moved, -1).astype(np.int32)


def write_shuffled(store: Store, writer: GuidanceWriter, *, like: str, seed: int) -> int:
    """Write for each clip the areas and boxes of another one, of another video where there is one.

    Frames are matched by their share of the clip, cells and pixels by their share of the frame.

    Args:
        store: The store.
        writer: Writes the new guidance.
        like: The source whose clips change places.
        seed: Seed of the order.

    Returns:
        Number of clips.

    Raises:
        InputError: Fewer than two clips have guidance.
    """
    names = _guided(store, like)
    donors = shuffled(names, _videos(store), seed)
    for clip_id in names:
        donor = donors[clip_id]
        count, own = len(store.frame_times(clip_id)), len(store.frame_times(donor))
        frames = np.arange(count) * own // count
        boxes = store.frame_boxes(donor, source=like)[frames]
        scaled = bx.scale_boxes(boxes, store.frame_size(donor), store.frame_size(clip_id))
        writer.add(clip_id, scaled, _resampled(store, donor, like, frames, store.grid_hw(clip_id)))
    return len(names)


def _resampled(
    store: Store, donor: str, like: str, frames: npt.NDArray[np.int64], size_hw: tuple[int, int]
) -> Iterator[Areas]:
    height, width = store.grid_hw(donor)
    rows, columns = np.arange(size_hw[0]) * height // size_hw[0], np.arange(size_hw[1]) * width // size_hw[1]
    for block in _blocks(len(frames)):
        yield store.motion_areas(donor, frames[block], source=like)[:, rows[:, None], columns]


def shuffled(names: list[str], video_of: dict[str, str], seed: int) -> dict[str, str]:
    """Return for each clip another one, each once; of another video unless one video has more than half of them.

    Raises:
        InputError: There are fewer than two.
    """
    if len(names) < 2:
        raise InputError(f"--shuffle needs two clips with guidance at least, got {len(names)}")
    rng = np.random.default_rng(seed)
    by_video: dict[str, list[str]] = {}
    for name in rng.permutation(np.array(sorted(names), object)).tolist():
        by_video.setdefault(video_of[name], []).append(name)
    order = [name for group in by_video.values() for name in group]
    step = min(max(map(len, by_video.values())), len(order) - 1)
    return {name: order[(place + step) % len(order)] for place, name in enumerate(order)}


def _guided(store: Store, like: str) -> list[str]:
    """Return the clips that have an area in the source."""
    clips = store.clips().to_pylist()
    return [row["clip_id"] for row in clips if row["num_frames"] and _has_area(store, row["clip_id"], like)]


def _has_area(store: Store, clip_id: str, like: str) -> bool:
    blocks = _blocks(len(store.frame_times(clip_id)))
    return any(store.motion_areas(clip_id, frames, source=like).any() for frames in blocks)


def _blocks(count: int) -> Iterator[npt.NDArray[np.int64]]:
    for first in range(0, count, BLOCK_FRAMES):
        yield np.arange(first, min(first + BLOCK_FRAMES, count))


def _videos(store: Store) -> dict[str, str]:
    clips = store.clips().select(["clip_id", "video_id"])
    return dict(zip(*(clips.column(name).to_pylist() for name in ("clip_id", "video_id")), strict=True))
