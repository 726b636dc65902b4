"""One work unit end to end: frames -> flow -> motion maps -> raw frame boxes. Pure functions: no Ray, no store.

Everything is computed block by block (see `plan`): a block sees its own frames, `CONTEXT_SECONDS` before them and the
frames shortly after, so its numbers do not depend on the unit that it is in. Flows that are to be kept leave with each
block, through the writer that the caller gives; everything else is returned.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.blocks import LOOKAHEAD_SECONDS, SPARSE_SECONDS, Block, iter_blocks
from motionbox.boxes import NO_BOX, scale_boxes
from motionbox.config import ExtractConfig
from motionbox.contours import detect_frame
from motionbox.errors import ClipError, Reason
from motionbox.flow import FlowEstimator
from motionbox.frames import Frame, VideoInfo, find_duplicates, mean_difference
from motionbox.motion import MotionAccumulator, quantise_map, shrink_map
from motionbox.plan import CONTEXT_SECONDS, Piece, Unit
from motionbox.store.clip_writer import PieceClips
from motionbox.store.commit import BLOCKS_SCHEMA, FRAMES_SCHEMA, UnitResult
from motionbox.store.flow_writer import CodedFlow, FlowCoder, FlowWriter

# Flows before a block that only prepare the first guess of `warm_start`.
WARM_UP_FLOWS = 2
# Reasons that speak of the machine as much as of the clip: the attempt is repeated, up to the quarantine limit.
FAULT_REASONS = frozenset({Reason.CRASHED, Reason.TIMEOUT, Reason.OUT_OF_MEMORY})

FLOW, REPEATED, LAST = 0, 1, 2
"""Where a frame's raw box comes from: its own flow, the frame that it repeats, or the flow before the last frame."""


class FrameSource(Protocol):
    """Opens videos. The frames come in order of time; where decoding breaks, ClipError follows what came before.

    Frames have colour (`Frame.rgb`) where the config keeps training clips.
    """

    def open(
        self, path: Path, *, start_seconds: float | None, stop_seconds: float | None, frame_fps: float | None
    ) -> tuple[VideoInfo, Generator[Frame]]:
        """Return what the video is and its frames with start <= time < stop; None: from the first, to the last.

        `frame_fps` is the rate of numbered frame files, None for videos.

        Raises:
            ClipError: It cannot be opened.
        """
        ...


class PieceFault(Exception):  # noqa: N818  (a fault of the attempt, counted against the video)
    """Processing one video crashed or hung; the unit's attempt is void.

    Attributes:
        video_id: The video at fault.
        reason: What happened.
        message: One line for the user.
    """

    def __init__(self, video_id: str, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.video_id = video_id
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[PieceFault], tuple[str, Reason, str]]:
        return type(self), (self.video_id, self.reason, self.message)


@dataclass
class _Rows:
    """Columns of the unit's frames, grown block by block."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in FRAMES_SCHEMA.names})
    blocks: list[dict[str, Any]] = field(default_factory=list)
    maps: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    flow: FlowWriter | None = None
    num_kept: int = 0
    clips: list[bytes] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        return len(self.columns["time_seconds"])


@dataclass(frozen=True)
class _BlockResult:
    times: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.int16]
    energy: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    origin: npt.NDArray[np.uint8]
    map_index: npt.NDArray[np.int32]
    maps: list[npt.NDArray[np.uint8]]
    flows: list[CodedFlow]

    @property
    def num_kept(self) -> int:
        """Return the number of flows that something is stored of."""
        return max(len(self.maps), len(self.flows))


def process_unit(
    unit: Unit,
    config: ExtractConfig,
    data_root: Path,
    source: FrameSource,
    estimator: FlowEstimator,
    *,
    skip: Mapping[str, tuple[Reason, str]] | None = None,
    on_progress: Callable[[str, int], None] | None = None,
    flow_writer: FlowWriter | None = None,
) -> UnitResult:
    """Compute the raw frame boxes and motion maps of a unit, and code its training clips.

    Args:
        unit: What to process.
        config: Every number of the extraction.
        data_root: Directory that the unit's paths are relative to.
        source: Opens the videos.
        estimator: Computes flow.
        skip: Quarantined videos: video id -> reason and message that their rows get.
        on_progress: Called before each piece and after each block with the video id and the frames done so far.
        flow_writer: Takes the flows as they come; given where, and only where, `store.flow` keeps them.

    Returns:
        The unit's rows; what is wrong with a single video is a row, too.

    Raises:
        PieceFault: Decoding a video crashed or hung.
        OSError: The flows cannot be written.
    """
    if (flow_writer is None) != (config.store.flow == "none"):
        raise ValueError(f"flow_writer must be given exactly where store.flow keeps flow, got {flow_writer!r}")
    rows = _Rows(flow=flow_writer)
    report = on_progress or (lambda _video_id, _num_frames: None)
    for piece in unit.pieces:
        report(piece.video_id, rows.num_frames)
        if skip and piece.video_id in skip:
            rows.blocks.append(_error_row(piece, piece.first_block or 0, *skip[piece.video_id]))
            continue
        _process_piece(piece, config, data_root, source, estimator, rows, report)
    return _to_result(rows, config)


def _process_piece(
    piece: Piece,
    config: ExtractConfig,
    data_root: Path,
    source: FrameSource,
    estimator: FlowEstimator,
    rows: _Rows,
    report: Callable[[str, int], None],
) -> None:
    lookahead = LOOKAHEAD_SECONDS + (config.flow.step_seconds or 0.0)
    start = None if piece.start_seconds is None else piece.start_seconds - CONTEXT_SECONDS
    stop = None if piece.stop_seconds is None else piece.stop_seconds + lookahead + SPARSE_SECONDS
    last_block = piece.first_block or 0
    try:
        info, frames = source.open(
            data_root / piece.path, start_seconds=start, stop_seconds=stop, frame_fps=piece.frame_fps
        )
        processor = BlockProcessor(info, config, estimator)
        clips = None if config.store.clips == "none" else PieceClips(piece, config.store.clips)
        with contextlib.closing(frames):
            for block in iter_blocks(frames if clips is None else clips.watch(frames), piece, lookahead):
                last_block = block.number
                _append(rows, piece, info, block, processor.process(block), clips)
                report(piece.video_id, rows.num_frames)
    except ClipError as error:
        if error.reason in FAULT_REASONS:
            raise PieceFault(piece.video_id, error.reason, error.message) from error
        if error.reason is Reason.EMPTY_SPAN and piece.first_block is not None:
            return
        rows.blocks.append(_error_row(piece, last_block, error.reason, error.message))


class BlockProcessor:
    """Compute the boxes and maps of one video's blocks."""

    def __init__(self, info: VideoInfo, config: ExtractConfig, estimator: FlowEstimator) -> None:
        self._display_wh = (info.width, info.height)
        self._config = config
        self._estimator = estimator
        self._recent: dict[tuple[float, float], npt.NDArray[np.float32]] = {}
        form = config.store.flow
        self._coder = None if form == "none" else FlowCoder(form, config.store.flow_bound_px)

    def process(self, block: Block) -> _BlockResult:
        """Return the rows of a block's own frames."""
        distinct, owner = self._distinct(block)
        pairs = self._pairs(block, distinct)
        result = self._empty(block)
        row_of_flow = self._detect(block, distinct, pairs, owner, result)
        self._assign(block, owner, row_of_flow, result)
        return result

    def _distinct(self, block: Block) -> tuple[list[int], npt.NDArray[np.int64]]:
        """Return the indices of the frames that repeat none, and for each frame the position of its own among them."""
        greys = [frame.grey for frame in block.frames]
        differences = np.array([mean_difference(a, b) for a, b in itertools.pairwise(greys)], np.float64)
        repeats = find_duplicates(differences, self._config.frames.duplicate_ratio)
        return np.flatnonzero(~repeats).tolist(), np.cumsum(~repeats) - 1

    def _pairs(self, block: Block, distinct: list[int]) -> list[int | None]:
        """Return for each distinct frame the position of the one that its flow goes to."""
        step = self._config.flow.step_seconds
        count = len(distinct)
        if step is None:
            return [k + 1 if k + 1 < count else None for k in range(count)]
        times = np.array([block.frames[i].time_seconds for i in distinct])
        # Half a microsecond of slack: timestamps are multiples of the clock's tick, not exact decimals.
        targets = np.searchsorted(times, times + step - 5e-7)
        return [int(target) if target < count else None for target in targets]

    def _empty(self, block: Block) -> _BlockResult:
        own = block.frames[block.first : block.stop]
        count = len(own)
        return _BlockResult(
            times=np.array([frame.time_seconds for frame in own], np.float64),
            boxes=np.full((count, 4), NO_BOX, np.int16),
            energy=np.zeros(count, np.float32),
            confidence=np.zeros(count, np.float32),
            origin=np.full(count, LAST, np.uint8),
            map_index=np.full(count, -1, np.int32),
            maps=[],
            flows=[],
        )

    def _detect(
        self,
        block: Block,
        distinct: list[int],
        pairs: list[int | None],
        owner: npt.NDArray[np.int64],
        result: _BlockResult,
    ) -> dict[int, tuple[npt.NDArray[np.int16], float, float, int]]:
        """Return box, energy, confidence and map of each flow that an own frame needs, by its distinct position."""
        flows = [k for k, pair in enumerate(pairs) if pair is not None]
        if not flows:
            return {}
        needed = {min(int(k), flows[-1]) for k in owner[block.first : block.stop]}
        accumulator = MotionAccumulator(self._config.motion)
        context = accumulator.context_frames + (WARM_UP_FLOWS if self._config.flow.warm_start else 0)
        begin = max(0, flows.index(min(needed)) - context)
        previous: npt.NDArray[np.float32] | None = None
        found: dict[int, tuple[npt.NDArray[np.int16], float, float, int]] = {}
        for k in flows[begin : flows.index(max(needed)) + 1]:
            pair = cast("int", pairs[k])
            previous = self._flow(block.frames[distinct[k]], block.frames[distinct[pair]], previous)
            motion = accumulator.push(previous)
            if k in needed:
                if self._coder is not None:
                    result.flows.append(self._coder.code(previous))
                found[k] = self._row(motion, result)
        return found

    def _flow(self, frame0: Frame, frame1: Frame, previous: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
        """Compute a flow, or take it from the end of the block before where it cannot differ."""
        if self._config.flow.warm_start:
            return np.array(self._estimator(frame0.grey, frame1.grey, initial=previous), np.float32)
        key = (frame0.time_seconds, frame1.time_seconds)
        if key not in self._recent:
            self._recent[key] = np.array(self._estimator(frame0.grey, frame1.grey), np.float32)
            while len(self._recent) > self._config.motion.window + 1:
                del self._recent[next(iter(self._recent))]
        return self._recent[key]

    def _row(
        self, motion: npt.NDArray[np.float32], result: _BlockResult
    ) -> tuple[npt.NDArray[np.int16], float, float, int]:
        detection = detect_frame(motion, self._config.contours)
        box = np.array(detection.box_xyxy or NO_BOX, np.int16)
        height, width = motion.shape
        store = self._config.store
        if store.motion_maps:
            result.maps.append(quantise_map(shrink_map(motion, store.map_scale), store.map_full_scale))
        display = scale_boxes(box, (width, height), self._display_wh)
        return display, detection.energy, detection.confidence, result.num_kept - 1

    def _assign(
        self,
        block: Block,
        owner: npt.NDArray[np.int64],
        found: dict[int, tuple[npt.NDArray[np.int16], float, float, int]],
        result: _BlockResult,
    ) -> None:
        if not found:
            return
        final = max(found)
        for row in range(block.stop - block.first):
            index = block.first + row
            k = int(owner[index])
            box, energy, confidence, map_index = found[min(k, final)]
            result.boxes[row] = box
            result.energy[row] = energy
            result.confidence[row] = confidence
            result.map_index[row] = map_index
            repeated = index > 0 and owner[index - 1] == owner[index]
            result.origin[row] = LAST if k > final else REPEATED if repeated else FLOW


def _append(
    rows: _Rows, piece: Piece, info: VideoInfo, block: Block, result: _BlockResult, clips: PieceClips | None
) -> None:
    offset = rows.num_kept
    rows.num_kept += result.num_kept
    rows.maps.extend(result.maps)
    if rows.flow is not None:
        rows.flow.add(offset, result.flows)
    columns = rows.columns
    columns["video_id"].extend([piece.video_id] * len(result.times))
    columns["time_seconds"].extend(result.times.tolist())
    for position, name in enumerate(("x1", "y1", "x2", "y2")):
        columns[name].extend(None if value < 0 else value for value in result.boxes[:, position].tolist())
    columns["energy"].append(result.energy)
    columns["confidence"].append(result.confidence)
    columns["origin"].extend(result.origin.tolist())
    columns["map_index"].extend(None if index < 0 else index + offset for index in result.map_index.tolist())
    map_height, map_width = result.maps[0].shape if result.maps else (0, 0)
    rows.blocks.append(
        {
            "video_id": piece.video_id,
            "block": block.number,
            "num_frames": len(result.times),
            "width": info.width,
            "height": info.height,
            "fps": info.fps,
            "map_width": map_width,
            "map_height": map_height,
            "reason": "",
            "message": "",
            **_append_clip(rows, block, clips),
        }
    )
    rows.blocks[-1]["digest"] = block_digest(info, result, rows.clips[-1] if clips is not None else b"")


def _append_clip(rows: _Rows, block: Block, clips: PieceClips | None) -> dict[str, Any]:
    """Add a block's clip block, empty where it cannot be coded; return the columns that say so."""
    if clips is None:
        return {}
    offset = sum(map(len, rows.clips))
    error = ""
    try:
        data = clips.take(block.number)
    except ClipError as failure:
        data, error = b"", f"{failure.reason}: {failure.message}"
    rows.clips.append(data)
    return {"clip_offset": offset, "clip_bytes": len(data), "clip_error": error}


def block_digest(info: VideoInfo, result: _BlockResult, clip: bytes) -> bytes:
    """Return the 16-byte BLAKE2 digest of a block's content: every value, flow and coded frame."""
    digest = hashlib.blake2b(f"{info.width}x{info.height}".encode(), digest_size=16)
    for array in (result.times, result.boxes, result.energy, result.confidence, result.origin, result.map_index):
        digest.update(np.ascontiguousarray(array).tobytes())
    for stored in result.maps:
        digest.update(repr(stored.shape).encode() + stored.tobytes())
    for flow in result.flows:
        digest.update(repr(flow.size_hw).encode() + flow.digest)
    digest.update(clip)
    return digest.digest()


def _error_row(piece: Piece, block: int, reason: Reason, message: str) -> dict[str, Any]:
    return {
        "video_id": piece.video_id,
        "block": block,
        "num_frames": 0,
        "reason": str(reason),
        "message": message,
        "digest": hashlib.blake2b(str(reason).encode(), digest_size=16).digest(),
    }


def _to_result(rows: _Rows, config: ExtractConfig) -> UnitResult:
    columns: dict[str, Any] = dict(rows.columns)
    for name in ("energy", "confidence"):
        columns[name] = np.concatenate([np.empty(0, np.float32), *columns[name]])
    arrays = [
        pa.array(columns[entry.name], pa.string()).dictionary_encode()
        if entry.name == "video_id"
        else pa.array(columns[entry.name], entry.type)
        for entry in FRAMES_SCHEMA
    ]
    frames = pa.Table.from_arrays(arrays, schema=FRAMES_SCHEMA)
    blocks = pa.Table.from_pylist(rows.blocks, schema=BLOCKS_SCHEMA)
    return UnitResult(
        frames,
        blocks,
        _pad_maps(rows.maps) if config.store.motion_maps else None,
        None if config.store.clips == "none" else b"".join(rows.clips),
        rows.flow,
    )


def _pad_maps(maps: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Stack maps of several sizes, each in the upper left corner."""
    height = max((stored.shape[0] for stored in maps), default=1)
    width = max((stored.shape[1] for stored in maps), default=1)
    stacked = np.zeros((len(maps), height, width), np.uint8)
    for target, stored in zip(stacked, maps, strict=True):
        target[: stored.shape[0], : stored.shape[1]] = stored
    return stacked
