"""One work unit end to end: frames -> flow -> motion maps -> raw frame boxes. Pure functions: no Ray, no store.

Everything is computed block by block (see `plan`): a block sees its own frames, `CONTEXT_SECONDS` before them and the
frames shortly after, so its numbers do not depend on the unit that it is in. Flows that are to be kept leave with each
block, through the writer that the caller gives; everything else is returned.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from motionbox.config import ExtractConfig
from motionbox.errors import ClipError, Reason
from motionbox.extraction.blocks import LOOKAHEAD_SECONDS, SPARSE_SECONDS, Block, iter_blocks
from motionbox.extraction.unit_rows import FLOW, LAST, REPEATED, BlockResult, UnitRows
from motionbox.flow import FlowEstimator, iter_flows
from motionbox.motion.boxes import NO_BOX, scale_boxes
from motionbox.motion.contours import detect_frame
from motionbox.motion.maps import MotionAccumulator, quantise_map, shrink_map
from motionbox.store.units import CONTEXT_SECONDS, Piece, Unit
from motionbox.store.writing.clip_writer import PieceClips
from motionbox.store.writing.commit import UnitResult
from motionbox.store.writing.flow_writer import FlowCoder, FlowWriter
from motionbox.video.frames import Frame, VideoInfo, find_duplicates, mean_difference

# Flows before a block that only prepare the first guess of `warm_start`.
WARM_UP_FLOWS = 2
# Reasons that speak of the machine as much as of the clip: the attempt is repeated, up to the quarantine limit.
FAULT_REASONS = frozenset({Reason.CRASHED, Reason.TIMEOUT, Reason.OUT_OF_MEMORY})


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
    rows = UnitRows(config.store, flow_writer)
    report = on_progress or (lambda _video_id, _num_frames: None)
    for piece in unit.pieces:
        report(piece.video_id, rows.num_frames)
        if skip and piece.video_id in skip:
            rows.add_error(piece, piece.first_block or 0, *skip[piece.video_id])
            continue
        _process_piece(piece, config, data_root, source, estimator, rows, report)
    return rows.to_result()


def _process_piece(
    piece: Piece,
    config: ExtractConfig,
    data_root: Path,
    source: FrameSource,
    estimator: FlowEstimator,
    rows: UnitRows,
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
                rows.add_block(piece, info, block.number, processor.process(block), clips)
                report(piece.video_id, rows.num_frames)
    except ClipError as error:
        if error.reason in FAULT_REASONS:
            raise PieceFault(piece.video_id, error.reason, error.message) from error
        if error.reason is Reason.EMPTY_SPAN and piece.first_block is not None:
            return
        rows.add_error(piece, last_block, error.reason, error.message)


class _Found(NamedTuple):
    """What is found in one flow: the frame box in display pixels, its energy and confidence, the number of its map."""

    box: npt.NDArray[np.int16]
    energy: float
    confidence: float
    map_index: int


class BlockProcessor:
    """Compute the boxes and maps of one video's blocks."""

    def __init__(self, info: VideoInfo, config: ExtractConfig, estimator: FlowEstimator) -> None:
        self._display_wh = (info.width, info.height)
        self._config = config
        self._estimator = estimator
        self._recent: dict[tuple[float, float], npt.NDArray[np.float32]] = {}
        form = config.store.flow
        self._coder = None if form == "none" else FlowCoder(form, config.store.flow_bound_px)

    def process(self, block: Block) -> BlockResult:
        """Return the rows of a block's own frames."""
        distinct, owner = self._distinct(block)
        pairs = self._pairs(block, distinct)
        result = self._empty(block)
        found = self._detect(block, distinct, pairs, owner, result)
        self._assign(block, owner, found, result)
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

    def _empty(self, block: Block) -> BlockResult:
        own = block.frames[block.first : block.stop]
        count = len(own)
        return BlockResult(
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
        result: BlockResult,
    ) -> dict[int, _Found]:
        """Return what is found in each flow that an own frame needs, by distinct position; keep its map in `result`."""
        flows = [k for k, pair in enumerate(pairs) if pair is not None]
        if not flows:
            return {}
        needed = {min(int(k), flows[-1]) for k in owner[block.first : block.stop]}
        accumulator = MotionAccumulator(self._config.motion)
        context = accumulator.context_frames + (WARM_UP_FLOWS if self._config.flow.warm_start else 0)
        begin = max(0, flows.index(min(needed)) - context)
        chosen = flows[begin : flows.index(max(needed)) + 1]
        frames = [(block.frames[distinct[k]], block.frames[distinct[cast("int", pairs[k])]]) for k in chosen]
        found: dict[int, _Found] = {}
        for k, (frame0, frame1), flow in zip(chosen, frames, self._flows(frames), strict=True):
            motion = accumulator.push(flow, (frame0.grey, frame1.grey))
            if k in needed:
                if self._coder is not None:
                    result.flows.append(self._coder.code(flow))
                found[k] = self._find(motion, result)
        return found

    def _flows(self, pairs: list[tuple[Frame, Frame]]) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the flow of each pair, in order; those of the end of the block before are taken from there."""
        if self._config.flow.warm_start:
            yield from self._warm_flows(pairs)
            return
        keys = [(frame0.time_seconds, frame1.time_seconds) for frame0, frame1 in pairs]
        known = {key: self._recent[key] for key in keys if key in self._recent}
        fresh = [(one.grey, two.grey) for (one, two), key in zip(pairs, keys, strict=True) if key not in known]
        computed = iter_flows(self._estimator, fresh)
        for key in keys:
            flow = known[key] if key in known else next(computed)
            self._recent[key] = flow
            while len(self._recent) > self._config.motion.window + 1:
                del self._recent[next(iter(self._recent))]
            yield flow

    def _warm_flows(self, pairs: list[tuple[Frame, Frame]]) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the flow of each pair, each started from the one before."""
        previous: npt.NDArray[np.float32] | None = None
        for frame0, frame1 in pairs:
            previous = np.array(self._estimator(frame0.grey, frame1.grey, initial=previous), np.float32)
            yield previous

    def _find(self, motion: npt.NDArray[np.float32], result: BlockResult) -> _Found:
        detection = detect_frame(motion, self._config.contours)
        box = np.array(detection.box_xyxy or NO_BOX, np.int16)
        height, width = motion.shape
        store = self._config.store
        if store.motion_maps:
            result.maps.append(quantise_map(shrink_map(motion, store.map_scale), store.map_full_scale))
        display = scale_boxes(box, (width, height), self._display_wh)
        return _Found(display, detection.energy, detection.confidence, result.num_kept - 1)

    def _assign(
        self,
        block: Block,
        owner: npt.NDArray[np.int64],
        found: dict[int, _Found],
        result: BlockResult,
    ) -> None:
        if not found:
            return
        final = max(found)
        for row in range(block.stop - block.first):
            index = block.first + row
            k = int(owner[index])
            flow = found[min(k, final)]
            result.boxes[row], result.map_index[row] = flow.box, flow.map_index
            result.energy[row], result.confidence[row] = flow.energy, flow.confidence
            repeated = index > 0 and owner[index - 1] == owner[index]
            result.origin[row] = LAST if k > final else REPEATED if repeated else FLOW
