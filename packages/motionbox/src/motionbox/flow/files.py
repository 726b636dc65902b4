"""Flow written to files: as denseflow names them, as EPIC-KITCHENS names them, as .flo or as one Zarr array.

One flow per pair: frames 0 and `step`, `stride` and `stride + step`, and so on, none left out (repeated frames of 30
fps footage are not skipped here). 8-bit values are `round(255 * (v + bound) / (2 * bound))`, clipped, so 127.5 is no
motion; u is positive to the right, v downwards. EPIC-KITCHENS' own flow is `step=3, stride=2, bound_px=20`.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from motionbox.config import FlowConfig
from motionbox.errors import ClipError, InputError
from motionbox.flow import FlowEstimator, create_flow_estimator
from motionbox.video import read_frames
from motionbox.video.frames import Frame

FlowFormat = Literal["jpg", "png", "flo", "zarr"]
FlowLayout = Literal["denseflow", "epic"]

JOURNAL = "flow.json"
"""In every output folder: what the flow was made with, and whether it is complete."""

_FLO_MAGIC = 202021.25


@dataclass(frozen=True)
class FlowFileOptions:
    """What is written, and how.

    Attributes:
        format: `jpg` or `png` (8 bit), `flo` (float32) or `zarr` (float16, one array `flow` (N, H, W, 2)).
        layout: File names of `jpg` and `png`: `denseflow` writes `flow_x_00001.jpg` and `flow_y_00001.jpg`, `epic`
            `u/frame_0000000001.jpg` and `v/frame_0000000001.jpg`.
        bound_px: Displacement that 8 bits can hold at most.
        step: Frames from the first to the second of a pair.
        stride: Frames from one pair's first to the next pair's.
        short_side_px: Frames are shrunk to this short side at most.
        method: `tvl1` or `dis`.
    """

    format: FlowFormat = "jpg"
    layout: FlowLayout = "denseflow"
    bound_px: float = 20.0
    step: int = 1
    stride: int = 1
    short_side_px: int = 256
    method: str = "tvl1"


@dataclass(frozen=True)
class FlowFilesResult:
    """What became of one video.

    Attributes:
        path: The video.
        folder: Where its flow lies.
        num_flows: Flows that are there now.
        num_new: Those of them that this call computed.
        error: What broke decoding after these flows, None where nothing did.
    """

    path: Path
    folder: Path
    num_flows: int
    num_new: int
    error: str | None


def quantise(component: NDArray[np.float32], bound_px: float) -> NDArray[np.uint8]:
    """Return one flow component (H, W) in pixels as uint8: -bound is 0, +bound is 255."""
    scaled = np.rint((component.astype(np.float64) + bound_px) * (255.0 / (2.0 * bound_px)))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def write_flo(path: Path, flow: NDArray[np.float32]) -> None:
    """Write a float32 (H, W, 2) flow as a Middlebury .flo file."""
    height, width = flow.shape[:2]
    _replace(path, struct.pack("<fii", _FLO_MAGIC, width, height) + flow.astype("<f4").tobytes())


def read_flo(path: Path) -> NDArray[np.float32]:
    """Read a Middlebury .flo file: float32 (H, W, 2).

    Raises:
        InputError: The file is no .flo file or is cut off.
    """
    data = path.read_bytes()
    if len(data) < 12 or struct.unpack_from("<f", data)[0] != np.float32(_FLO_MAGIC):
        raise InputError(f"{path}: must begin like a .flo file; it is something else")
    width, height = struct.unpack_from("<ii", data, 4)
    if width < 1 or height < 1 or len(data) != 12 + 8 * width * height:
        raise InputError(f"{path}: must hold {width}x{height} flow vectors, has {len(data)} bytes; it is cut off")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)


def write_flow_files(path: Path, folder: Path, options: FlowFileOptions, *, backend: str = "auto") -> FlowFilesResult:
    """Compute the flow of a video into a folder; flows that are already there are kept.

    Args:
        path: Video file, folder of frames or tar of frames.
        folder: Created where missing.
        options: What to write.
        backend: As `flow.create_flow_estimator`.

    Raises:
        InputError: The folder holds flow made with other options or of another file.
        ClipError: Not one pair could be read.
        FlowError: The backend cannot run here.
    """
    journal = _open_journal(path, folder, options)
    if journal["complete"]:
        return FlowFilesResult(path, folder, int(journal["num_flows"]), 0, None)
    estimator = create_flow_estimator(FlowConfig(method=options.method), backend=backend)
    sink = _ZarrSink(folder) if options.format == "zarr" else _FileSink(folder, options)
    num_flows = num_new = 0
    error: ClipError | None = None
    try:
        for first, second in _pairs(read_frames(path, short_side_px=options.short_side_px), options):
            num_new += _write_pair(sink, num_flows, first, second, estimator)
            num_flows += 1
    except ClipError as failure:
        error = failure
    if num_flows == 0 and error is not None:
        raise error
    journal |= {"num_flows": num_flows, "complete": error is None}
    _replace(folder / JOURNAL, json.dumps(journal, indent=1).encode())
    return FlowFilesResult(path, folder, num_flows, num_new, None if error is None else error.message)


def _write_pair(sink: _FileSink | _ZarrSink, number: int, first: Frame, second: Frame, estimator: FlowEstimator) -> int:
    if sink.has(number):
        return 0
    sink.write(number, estimator(first.grey, second.grey))
    return 1


def _pairs(frames: Iterator[Frame], options: FlowFileOptions) -> Iterator[tuple[Frame, Frame]]:
    window: deque[Frame] = deque(maxlen=options.step + 1)
    for position, frame in enumerate(frames):
        window.append(frame)
        if position >= options.step and (position - options.step) % options.stride == 0:
            yield window[0], frame


def _open_journal(path: Path, folder: Path, options: FlowFileOptions) -> dict[str, Any]:
    status = path.stat() if path.exists() else None
    source = None if status is None else {"name": path.name, "bytes": status.st_size if path.is_file() else None}
    wanted: dict[str, Any] = {"source": source, "options": asdict(options)}
    file = folder / JOURNAL
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _replace(file, json.dumps({**wanted, "num_flows": 0, "complete": False}, indent=1).encode())
        return {**wanted, "num_flows": 0, "complete": False}
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        same = {key: found.get(key) for key in wanted} == wanted and {"num_flows", "complete"} <= found.keys()
    except (ValueError, AttributeError):
        same, found = False, {}
    if not same:
        raise InputError(f"{folder} holds flow of another video or made with other options; choose another -o")
    return found


class _FileSink:
    def __init__(self, folder: Path, options: FlowFileOptions) -> None:
        self._folder = folder
        self._options = options
        if options.layout == "epic" and options.format != "flo":
            for name in ("u", "v"):
                (folder / name).mkdir(exist_ok=True)

    def _paths(self, number: int) -> list[Path]:
        suffix = self._options.format
        if suffix == "flo":
            return [self._folder / f"flow_{number + 1:05d}.flo"]
        if self._options.layout == "epic":
            return [self._folder / name / f"frame_{number + 1:010d}.{suffix}" for name in ("u", "v")]
        return [self._folder / f"flow_{axis}_{number + 1:05d}.{suffix}" for axis in ("x", "y")]

    def has(self, number: int) -> bool:
        """Tell whether all files of a flow are there; files appear whole or not at all."""
        return all(path.exists() for path in self._paths(number))

    def write(self, number: int, flow: NDArray[np.float32]) -> None:
        import cv2

        paths = self._paths(number)
        if self._options.format == "flo":
            write_flo(paths[0], flow)
            return
        for axis, path in enumerate(paths):
            _, data = cv2.imencode(path.suffix, quantise(flow[..., axis], self._options.bound_px))
            _replace(path, data.tobytes())


class _ZarrSink:
    """One array that grows flow by flow; its attribute `num_flows` says how many are whole."""

    def __init__(self, folder: Path) -> None:
        import zarr

        self._group = zarr.open_group(folder / "flow.zarr", mode="a")
        self._done = int(str(self._group.attrs.get("num_flows", 0)))

    def has(self, number: int) -> bool:
        """Tell whether a flow was written whole."""
        return number < self._done

    def write(self, number: int, flow: NDArray[np.float32]) -> None:
        shape = (number + 1, *flow.shape)
        if "flow" in self._group:
            array: Any = self._group["flow"]
            array.resize(shape)
        else:
            array = self._group.create_array("flow", shape=shape, chunks=(1, *flow.shape), dtype="float16")
        array[number] = flow.astype(np.float16)
        self._group.attrs["num_flows"] = number + 1
        self._done = number + 1


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
