"""Real footage as a backdrop: where in a video nothing but the camera moves, how it moves, how sharp and noisy it is.

Truth about what moves is only exact where the footage itself holds nothing that moves. So a backdrop is a stretch of
frames, and often a part of the picture, in which flow that the camera does not explain is rare. Short stretches are
played forwards and backwards until they are long enough: a camera that sways.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.errors import ClipError, InputError
from motionbox.video import probe, read_colour_frames, read_frames

Matrix = NDArray[np.float64]

SHORT_SIDE_PX = 360
"""Footage is shrunk to this short side."""

MIN_SIDE_PX = 120
"""Backdrops are at least this wide and high."""

FASTEST_FPS = 40.0
"""Footage of a higher rate is taken at half of it: much of it holds every frame twice."""

_ANALYSED_SHORT_PX = 192
_MAX_FRAMES = 900  # of a video that are looked at
_MIN_FRAMES = 12  # of a backdrop, before it is played to and fro
_GRID = 12  # cells along the short side in which own motion is counted
_DISTANCE, _STRIDE = 4, 2  # frames between the two that are compared, and from one comparison to the next
_LEAST_TEXTURE = 0.4  # share of the cells of a backdrop that hold a corner, or nothing tells how the camera moves
_WEAKEST_CORNER = 1e-3  # smaller eigenvalue of the gradients, of grey levels from 0 to 1
_WINDOWS = ((1.0, 1), (0.75, 3), (0.55, 4))  # side of a part of the picture, positions along each side
_STILL_SHARE, _MOVING_SHARE = (
    0.012,
    0.07,
)  # own motion that a backdrop may hold: before a still and before a fast camera
_PER_VIDEO = 8
_SOBEL_VARIANCE = 0.59  # blur that the Sobel operator adds itself, seen on steps of known blur


@dataclass(frozen=True)
class Backdrop:
    """Part of a video in which little but the camera moves.

    Attributes:
        path: Video, or folder of frames, relative to the footage folder.
        start: First frame (of those at `fps`), from 0.
        num_frames: Frames.
        fps: Frames per second, after halving.
        every: 2 where every other frame of the file is left out, else 1.
        window: Part of the picture, xyxy as shares of its width and height.
        own_motion: Share of the picture that moves by itself, mean over frames.
        camera_px: How far the camera moves the picture per frame, in pixels at a short side of 192, median.
    """

    path: str
    start: int
    num_frames: int
    fps: float
    every: int
    window: tuple[float, float, float, float]
    own_motion: float
    camera_px: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return asdict(self)


def backdrop_of_json(fields: dict[str, Any]) -> Backdrop:
    """Return the backdrop that `Backdrop.to_json` described."""
    return Backdrop(**{**fields, "window": tuple(fields["window"])})


def find_backdrops(root: Path, relative: str) -> list[Backdrop]:
    """Find the stretches and parts of a video in which little but the camera moves, the best first.

    Args:
        root: Folder of the footage.
        relative: A video, tar or folder of frames below it.

    Returns:
        At most 8 backdrops that differ in frames or in the part of the picture; none where everything moves.

    Raises:
        ClipError: The video cannot be read.
    """
    info = probe(root / relative)
    every = 2 if info.fps > FASTEST_FPS else 1
    motion, texture, camera_px = _own_motion(_grey_frames(root / relative, every))
    if not len(motion):
        return []
    short = min(info.width, info.height, SHORT_SIDE_PX)
    found = []
    for window in _windows():
        if short * min(window[2] - window[0], window[3] - window[1]) < MIN_SIDE_PX:
            continue
        shares = _inside(motion, window)
        limit = np.where(camera_px < 0.3, _STILL_SHARE, np.minimum(_STILL_SHARE + 0.03 * camera_px, _MOVING_SHARE))
        quiet = (shares <= limit) & (_inside(texture, window) >= _LEAST_TEXTURE)
        for start, stop in _runs(quiet):
            num_frames = _STRIDE * (stop - start - 1) + _DISTANCE + 1
            if num_frames >= _MIN_FRAMES:
                own, moved = float(shares[start:stop].mean()), float(np.median(camera_px[start:stop]))
                fps = info.fps / every
                found.append(Backdrop(relative, _STRIDE * start, num_frames, fps, every, window, round(own, 4), moved))
    return sorted(found, key=_worth, reverse=True)[:_PER_VIDEO]


def _worth(backdrop: Backdrop) -> float:
    """Rank long and large backdrops before a moving camera first."""
    return (
        min(backdrop.num_frames, 90) * (backdrop.window[2] - backdrop.window[0]) * (0.4 + min(backdrop.camera_px, 1.0))
    )


def _grey_frames(path: Path, every: int) -> Iterator[NDArray[np.uint8]]:
    try:
        for frame in read_frames(path, short_side_px=_ANALYSED_SHORT_PX):
            if frame.index >= _MAX_FRAMES * every:
                return
            if frame.index % every == 0:
                yield frame.grey
    except ClipError:
        return  # what was decoded before the fault is good


def _own_motion(
    frames: Iterator[NDArray[np.uint8]],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compare frames with the fourth one after them, every other one.

    Flow counts as the scene's own where it differs from the camera's by more than 0.8 px and a tenth of it.

    Returns:
        Per comparison the share of pixels that move by themselves per cell, (n, h, w); 1 for cells that hold corners,
        (n, h, w); and how far the camera moves the picture in a frame, pixels, (n,).
    """
    flow_method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    cells, texture, camera = [], [], []
    recent: deque[NDArray[np.uint8]] = deque(maxlen=_DISTANCE + 1)
    for index, after in enumerate(frames):
        recent.append(after)
        if len(recent) <= _DISTANCE or (index - _DISTANCE) % _STRIDE:
            continue
        before = recent[0]
        height, width = before.shape
        matrix = camera_step(before, after)
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float64)
        explained = np.zeros_like(grid) if matrix is None else grid @ matrix[:2, :2].T + matrix[:2, 2] - grid
        speed = np.hypot(explained[..., 0], explained[..., 1])
        if matrix is None:
            moves = np.ones(before.shape, bool)
        else:
            rest = np.asarray(flow_method.calc(before, after, None), np.float64) - explained  # type: ignore[call-overload]
            moves = (np.hypot(rest[..., 0], rest[..., 1]) > 0.8 + 0.1 * speed) & _changed(before, after, matrix)
        size = (round(_GRID * width / min(width, height)), round(_GRID * height / min(width, height)))
        cells.append(cv2.resize(moves.astype(np.float32), size, interpolation=cv2.INTER_AREA).astype(np.float64))
        texture.append(_cells_with_corners(before, size))
        camera.append(float(np.median(speed)) / _DISTANCE)
    return np.array(cells), np.array(texture), np.array(camera)


def _changed(before: NDArray[np.uint8], after: NDArray[np.uint8], matrix: Matrix) -> NDArray[np.bool_]:
    """Return where two frames differ by more than noise once the camera is taken out, (h, w).

    Flow of flat, noisy areas is arbitrary: without a visible difference it counts for nothing.
    """
    height, width = before.shape
    back = cv2.warpAffine(
        after,
        matrix[:2],
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    first, second = (cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 1.5) for frame in (before, back))
    return np.asarray(np.abs(first - second) > 4)


def _cells_with_corners(grey: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return 1 for the (width, height) cells that hold something to track, (h, w)."""
    strength = np.asarray(cv2.cornerMinEigenVal(grey, 5), np.float32)
    rows = np.array_split(strength, size[1], axis=0)
    best = np.array([[part.max() for part in np.array_split(row, size[0], axis=1)] for row in rows])
    return (best > _WEAKEST_CORNER).astype(np.float64)


def camera_step(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Matrix | None:
    """Estimate the camera's motion between two frames from corners that most of the picture agrees on.

    Args:
        before: uint8 (h, w) grey.
        after: uint8 (h, w) grey.

    Returns:
        Affine matrix (3, 3) that takes pixels of the first frame to the second; exactly the identity where it moves
        the picture's corners by less than 0.2 px; None where no motion explains half of the corners (a cut).
    """
    corners = cv2.goodFeaturesToTrack(before, 400, 0.01, 6)
    identity = np.eye(3)
    if corners is None or len(corners) < 12:
        return identity if float(np.abs(before.astype(np.float32) - after).mean()) < 2 else None
    moved, found = _track(before, after, corners)
    back, found_back = _track(after, before, moved)
    sure = found & found_back & (np.abs(back - corners).reshape(-1, 2).max(axis=1) < 0.5)
    if sure.sum() < max(12, 0.4 * len(corners)):
        return None
    matrix, agree = cv2.estimateAffine2D(corners[sure], moved[sure], method=cv2.RANSAC, ransacReprojThreshold=1.0)
    if matrix is None or agree.mean() < 0.5:
        return None
    height, width = before.shape
    frame = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], np.float64)
    if np.abs(matrix @ frame - frame[:2]).max() < 0.2:
        return identity
    return np.vstack([matrix, [0, 0, 1]]).astype(np.float64)


def _track(
    before: NDArray[np.uint8], after: NDArray[np.uint8], points: Any
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None, winSize=(15, 15))  # type: ignore[call-overload]
    return np.asarray(moved, np.float32), np.asarray(found)[:, 0] > 0


def _windows() -> Iterator[tuple[float, float, float, float]]:
    for side, positions in _WINDOWS:
        for left in np.linspace(0, 1 - side, positions):
            for top in np.linspace(0, 1 - side, positions):
                corners = (left, top, left + side, top + side)
                yield tuple(round(float(share), 3) for share in corners)  # type: ignore[misc]


def _inside(cells: NDArray[np.float64], window: tuple[float, float, float, float]) -> NDArray[np.float64]:
    height, width = cells.shape[1:]
    left, top, right, bottom = window
    part = cells[:, round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    share: NDArray[np.float64] = part.mean(axis=(1, 2))
    return share


def _runs(good: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return [start, stop) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def read_backdrop(root: Path, backdrop: Backdrop) -> NDArray[np.uint8]:
    """Decode a backdrop.

    Returns:
        uint8 (T, h, w, 3) RGB, even height and width, a short side of the whole picture of at most 360.

    Raises:
        InputError: The footage has changed since it was looked at.
    """
    frames: list[NDArray[np.uint8]] = []
    try:
        for frame in read_colour_frames(root / backdrop.path, short_side_px=SHORT_SIDE_PX):
            position, skipped = divmod(frame.index, backdrop.every)
            if skipped or position < backdrop.start:
                continue
            height, width = frame.rgb.shape[:2]
            left, top = round(backdrop.window[0] * width), round(backdrop.window[1] * height)
            right, bottom = round(backdrop.window[2] * width), round(backdrop.window[3] * height)
            frames.append(frame.rgb[top : bottom - (bottom - top) % 2, left : right - (right - left) % 2].copy())
            if len(frames) == backdrop.num_frames:
                break
    except ClipError as error:
        if len(frames) < backdrop.num_frames:
            raise InputError(f"{error}; the footage has changed, choose another output folder") from error
    if len(frames) < backdrop.num_frames:
        raise InputError(f"{root / backdrop.path} has become shorter; choose another output folder")
    return np.stack(frames)


def to_and_fro(num_frames: int, count: int, first: int) -> NDArray[np.int64]:
    """Return `count` frame indices that run from `first` to the end, back to the beginning and so on, (count,)."""
    if num_frames == 1:
        return np.zeros(count, np.int64)
    period = 2 * (num_frames - 1)
    phase = (np.arange(count) + first) % period
    indices: NDArray[np.int64] = np.where(phase < num_frames, phase, period - phase)
    return indices


def camera_path(frames: NDArray[np.uint8]) -> Matrix:
    """Return where the camera takes the first frame's pixels in each frame, (T, 3, 3) affine.

    Args:
        frames: uint8 (T, h, w, 3) RGB without cuts.
    """
    path = [np.eye(3)]
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    for before, after in pairwise(greys):
        step = camera_step(np.asarray(before, np.uint8), np.asarray(after, np.uint8))
        path.append(path[-1] if step is None else step @ path[-1])
    return np.array(path)


@dataclass(frozen=True)
class Look:
    """How a camera renders: what is laid over its pictures must look the same.

    Attributes:
        blur_px: Standard deviation of a Gaussian that makes a sharp drawing as soft as the footage.
        noise: Standard deviation of the pixel noise in grey levels.
        brightness: Mean grey level.
    """

    blur_px: float
    noise: float
    brightness: float


def measure_look(frame: NDArray[np.uint8]) -> Look:
    """Measure sharpness, noise and brightness of a frame, uint8 (h, w, 3) RGB."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return Look(_edge_width(grey), _noise_level(grey), float(grey.mean()))


def _edge_width(grey: NDArray[np.float32]) -> float:
    """Return the blur of the sharpest edges, from how much a further blur of 1 px weakens them.

    An ideal step blurred by b has the gradient 1 / b at its middle; blurring by one more pixel makes that
    1 / sqrt(b² + 1) (Zhuo and Sim, "Defocus map estimation from a single image", 2011).
    """
    gradient = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    softer = cv2.GaussianBlur(grey, (0, 0), 1.0)
    soft = np.hypot(cv2.Sobel(softer, cv2.CV_32F, 1, 0), cv2.Sobel(softer, cv2.CV_32F, 0, 1))
    strong = gradient >= max(0.5 * float(np.quantile(gradient, 0.99)), 1.0)
    if not strong.any():
        return 1.0
    ratio = float(np.quantile(gradient[strong] / np.maximum(soft[strong], 1e-3), 0.75))
    variance = 1 / max(ratio**2 - 1, 0.1) - _SOBEL_VARIANCE
    return float(np.clip(np.sqrt(max(variance, 0.0)), 0.3, 2.5))


def _noise_level(grey: NDArray[np.float32]) -> float:
    """Return the noise of the flattest quarter of the picture (Immerkaer, "Fast noise variance estimation", 1996)."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(grey, cv2.CV_32F, kernel))
    blocks = cv2.resize(response, None, fx=1 / 16, fy=1 / 16, interpolation=cv2.INTER_AREA)
    return float(np.clip(np.sqrt(np.pi / 2) / 6 * np.quantile(blocks, 0.25), 0, 8))


def check_footage(root: Path) -> None:
    """Raise where the footage folder is not there.

    Raises:
        InputError: It is not.
    """
    if not root.is_dir():
        raise InputError(f"footage must be a folder of videos, got {str(root)!r}; check --footage")
