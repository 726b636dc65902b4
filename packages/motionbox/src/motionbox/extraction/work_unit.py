"""One work unit: frames in, rows out. Frames -> flow -> motion maps -> raw frame boxes, block by block.

A block sees its own frames, `CONTEXT_SECONDS` before them and the frames shortly after (see `blocks`), so its numbers
do not depend on the unit that it is in. Nothing is written here and nothing of Ray is known.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from motionbox.config import ExtractConfig
from motionbox.errors import ClipError, Reason
from motionbox.extraction.blocks import LOOKAHEAD_SECONDS, SPARSE_SECONDS, Block, iter_blocks
from motionbox.extraction.time_spent import TimeSpent
from motionbox.flow import FlowEstimator, iter_flows
from motionbox.inputs.data_root import DataRoot, place_below
from motionbox.motion.boxes import NO_BOX, scale_boxes
from motionbox.motion.contours import detect_frame
from motionbox.motion.maps import MotionAccumulator, quantise_map, shrink_map
from motionbox.store.clip_coder import PieceClips
from motionbox.store.flow_form import CodedFlow, FlowCoder
from motionbox.store.reuse.stored_blocks import StoredBlocks
from motionbox.store.units import (
    CONTEXT_SECONDS,
    FLOW,
    LAST,
    REPEATED,
    BlockResult,
    BlockRows,
    Piece,
    Unit,
    VideoError,
    block_of,
)
from motionbox.video.frames import WHOLE, Frame, Span, VideoInfo, find_duplicates, mean_difference

# Reasons that speak of the machine as much as of the clip: the attempt is repeated, up to the quarantine limit.
FAULT_REASONS = frozenset({Reason.CRASHED, Reason.TIMEOUT, Reason.OUT_OF_MEMORY})


class FrameSource(Protocol):
    """Opens videos. The frames come in order of time; where decoding breaks, ClipError follows what came before.

    Frames have colour (`Frame.rgb`) where the config keeps training clips.
    """

    def open(self, path: Path, span: Span = WHOLE) -> tuple[VideoInfo, Generator[Frame]]:
        """Return what the video is and those of its frames that are wanted.

        Raises:
            ClipError: It cannot be opened.
        """
        ...


class PlaceSource(Protocol):
    """Opens videos wherever they lie, as `FrameSource` does."""

    def open(self, path: DataRoot, span: Span = WHOLE) -> tuple[VideoInfo, Generator[Frame]]:
        """See `FrameSource.open`."""
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
    data_root: DataRoot,
    source: PlaceSource,
    estimator: FlowEstimator,
    *,
    skip: Mapping[str, tuple[Reason, str]] | None = None,
    stored: StoredBlocks | None = None,
    on_video: Callable[[str], None] | None = None,
    spent: TimeSpent | None = None,
) -> Iterator[BlockRows | VideoError]:
    """Compute the raw frame boxes and motion maps of a unit, and code its flows and training clips.

    Args:
        unit: What to process.
        config: Every number of the extraction.
        data_root: What the unit's paths are relative to.
        source: Opens the videos.
        estimator: Computes flow.
        skip: Quarantined videos: video id -> reason and message that their rows get.
        stored: The unit as a sibling run has it: its rows are taken over, so that at most training clips are made.
        on_video: Called with the video id before a piece of it is read.
        spent: Notes where the time goes.

    Yields:
        The unit's rows, block by block; what is wrong with a single video is a row, too.

    Raises:
        PieceFault: Decoding a video crashed or hung.
    """
    for piece in unit.pieces:
        if on_video is not None:
            on_video(piece.video_id)
        if skip and piece.video_id in skip:
            yield VideoError(piece.video_id, piece.first_block or 0, *skip[piece.video_id])
            continue
        path, clock = place_below(data_root, piece.path), spent or TimeSpent()
        rest: Piece | None = piece
        if stored is not None and (numbers := stored.numbers(piece)):
            if stored.has_clips:
                rest = yield from _take_piece(piece, stored, numbers, clock)
            else:
                rest = yield from _code_piece(piece, config, path, source, stored, numbers, clock)
        if rest is not None:
            yield from _process_piece(rest, config, path, source, estimator, clock)


def _process_piece(
    piece: Piece,
    config: ExtractConfig,
    path: DataRoot,
    source: PlaceSource,
    estimator: FlowEstimator,
    spent: TimeSpent,
) -> Iterator[BlockRows | VideoError]:
    lookahead = LOOKAHEAD_SECONDS + (config.flow.step_seconds or 0.0)
    start = None if piece.start_seconds is None else piece.start_seconds - CONTEXT_SECONDS
    enough = None if piece.stop_seconds is None else piece.stop_seconds + lookahead
    stop = None if enough is None else enough + SPARSE_SECONDS
    last_block = piece.first_block or 0
    try:
        with spent.on("decoding"):
            info, frames = source.open(path, Span(start, stop, piece.frame_fps, enough))
        processor = BlockProcessor(info, config, estimator, spent)
        clips = None if config.store.clips == "none" else PieceClips(piece, config.store.clips)
        with contextlib.closing(frames):
            read = spent.over("decoding", frames)
            if clips is not None:
                read = spent.over("training clips", clips.watch(read))
            for block in iter_blocks(read, piece, lookahead):
                last_block = block.number
                result = processor.process(block)
                with spent.on("training clips"):
                    clip, clip_error = (None, "") if clips is None else _clip_of(clips, block.number)
                yield BlockRows(piece.video_id, block.number, info, result, clip, clip_error)
    except ClipError as error:
        yield from _what_went_wrong(piece, last_block, error)


def _take_piece(
    piece: Piece, stored: StoredBlocks, numbers: Sequence[int], spent: TimeSpent
) -> Generator[BlockRows, None, Piece | None]:
    """Take a piece over as it is, without a look at its video.

    Returns:
        What is left from the first block on that is damaged; None where none is.
    """
    for number in numbers:
        with spent.on("store"):
            rows = stored.read(piece.video_id, number)
        if rows is None:
            return replace(piece, first_block=number)
        yield rows
    return None


def _code_piece(
    piece: Piece,
    config: ExtractConfig,
    path: DataRoot,
    source: PlaceSource,
    stored: StoredBlocks,
    numbers: Sequence[int],
    spent: TimeSpent,
) -> Generator[BlockRows | VideoError, None, Piece | None]:
    """Code the training clips of a piece whose rows are known.

    Returns:
        What is left from the first block on whose stored rows are damaged, or of other frames; None where all fitted.
    """
    if config.store.clips == "none":
        raise AssertionError("rows are taken over for the sake of training clips")
    start = None if piece.start_seconds is None else piece.start_seconds - CONTEXT_SECONDS
    clips = PieceClips(piece, config.store.clips)
    expected, last_block = list(numbers), piece.first_block or 0
    try:
        with spent.on("decoding"):
            info, frames = source.open(path, Span(start, piece.stop_seconds, piece.frame_fps))
        with contextlib.closing(frames):
            seen = spent.over("training clips", clips.watch(spent.over("decoding", frames)))
            for number, own in itertools.groupby((frame.time_seconds for frame in seen), block_of):
                times = np.array(list(own), np.float64)
                if piece.first_block is not None and number < piece.first_block:
                    continue
                with spent.on("store"):
                    rows = stored.read(piece.video_id, number) if expected[:1] == [number] else None
                size_wh = None if rows is None else (rows.info.width, rows.info.height)
                if rows is None or size_wh != (info.width, info.height) or not np.array_equal(rows.result.times, times):
                    expected = [min([number, *expected])]
                    break
                last_block = expected.pop(0)
                with spent.on("training clips"):
                    clip, clip_error = _clip_of(clips, number)
                yield replace(rows, info=info, clip=clip, clip_error=clip_error)
    except ClipError as error:
        yield from _what_went_wrong(piece, last_block, error)
        return None
    return replace(piece, first_block=expected[0]) if expected else None


def _what_went_wrong(piece: Piece, last_block: int, error: ClipError) -> Iterator[VideoError]:
    """Yield what a video's row says of an error, where it is one.

    Raises:
        PieceFault: The error speaks of the machine as much as of the video.
    """
    if error.reason in FAULT_REASONS:
        raise PieceFault(piece.video_id, error.reason, error.message) from error
    # A piece that begins after the end of its video is nothing wrong: headers promise too much.
    if error.reason is not Reason.EMPTY_SPAN or piece.first_block is None:
        yield VideoError(piece.video_id, last_block, error.reason, error.message)


def _clip_of(clips: PieceClips, number: int) -> tuple[bytes, str]:
    """Return a block's colour frames as a clip block, empty where they cannot be coded, and why."""
    try:
        return clips.take(number), ""
    except ClipError as error:
        return b"", f"{error.reason}: {error.message}"


class _Found(NamedTuple):
    """What is found in one flow: the raw frame box in display pixels, the map's energy, the box's confidence."""

    box: npt.NDArray[np.int16]
    energy: float
    confidence: float


class BlockProcessor:
    """Compute the boxes and maps of one video's blocks.

    Two kinds of numbers are used. Frames are numbered as the block holds them. *Pictures* are the frames that repeat
    none, numbered by themselves; flow number k leads from picture k to a later one. The last pictures have no flow, so
    there are fewer flows than pictures, but a flow's number is always that of the picture that it begins at.
    """

    def __init__(
        self, info: VideoInfo, config: ExtractConfig, estimator: FlowEstimator, spent: TimeSpent | None = None
    ) -> None:
        self._display_wh = (info.width, info.height)
        self._config = config
        self._estimator = estimator
        self._spent = spent or TimeSpent()
        self._recent: dict[tuple[float, float], npt.NDArray[np.float32]] = {}
        form = config.store.flow
        self._coder = None if form == "none" else FlowCoder(form, config.store.flow_bound_px)

    def process(self, block: Block) -> BlockResult:
        """Return the rows of a block's own frames."""
        shown = self._pictures_shown(block)
        pictures = [block.frames[int(i)] for i in np.unique(shown, return_index=True)[1]]
        pairs = self._pairs(pictures)
        own = slice(block.first, block.stop)
        times = np.array([frame.time_seconds for frame in block.frames[own]], np.float64)
        if not pairs:
            return _without_flow(times)
        # An own frame's box comes from the flow that begins at its picture, at the video's end from the last flow.
        flow_of = np.minimum(shown[own], len(pairs) - 1)
        first, last = int(flow_of[0]), int(flow_of[-1])
        found, maps, flows = self._find(pairs, first, last)
        repeats = np.diff(shown, prepend=-1)[own] == 0
        nth = flow_of - first
        return BlockResult(
            times=times,
            boxes=np.stack([entry.box for entry in found])[nth],
            energy=np.array([entry.energy for entry in found], np.float32)[nth],
            confidence=np.array([entry.confidence for entry in found], np.float32)[nth],
            origin=np.where(shown[own] > flow_of, LAST, np.where(repeats, REPEATED, FLOW)).astype(np.uint8),
            map_index=nth.astype(np.int32) if maps or flows else np.full(len(times), -1, np.int32),
            maps=maps,
            flows=flows,
        )

    def _pictures_shown(self, block: Block) -> npt.NDArray[np.int64]:
        """Return for each frame of the block the number of the picture that it shows; it rises by 0 or 1."""
        greys = [frame.grey for frame in block.frames]
        differences = np.array([mean_difference(a, b) for a, b in itertools.pairwise(greys)], np.float64)
        repeats = find_duplicates(differences, self._config.frames.duplicate_ratio)
        return np.cumsum(~repeats) - 1

    def _pairs(self, pictures: Sequence[Frame]) -> list[tuple[Frame, Frame]]:
        """Return from which picture to which each flow leads, as many as there are."""
        step = self._config.flow.step_seconds
        if step is None:
            return list(itertools.pairwise(pictures))
        times = np.array([picture.time_seconds for picture in pictures])
        # Half a microsecond of slack: timestamps are multiples of the clock's tick, not exact decimals.
        targets = np.searchsorted(times, times + step - 5e-7)
        return [(pictures[k], pictures[target]) for k, target in enumerate(targets) if target < len(pictures)]

    def _find(
        self, pairs: Sequence[tuple[Frame, Frame]], first: int, last: int
    ) -> tuple[list[_Found], list[npt.NDArray[np.uint8]], list[CodedFlow]]:
        """Return what is found in flows number `first` to `last`, their maps, and the flows themselves as stored."""
        accumulator = MotionAccumulator(self._config.motion)
        begin = max(0, first - accumulator.context_frames)  # flows before the first one fill the window of the maps
        chosen = pairs[begin : last + 1]
        found: list[_Found] = []
        maps: list[npt.NDArray[np.uint8]] = []
        flows: list[CodedFlow] = []
        store = self._config.store
        for number, ((frame0, frame1), flow) in enumerate(
            zip(chosen, self._spent.over("flow", self._flows(chosen)), strict=True), begin
        ):
            with self._spent.on("motion maps and boxes"):
                motion = accumulator.push(flow, (frame0.grey, frame1.grey))
                if number < first:
                    continue
                if self._coder is not None:
                    with self._spent.on("store"):
                        flows.append(self._coder.code(flow))
                if store.motion_maps:
                    maps.append(quantise_map(shrink_map(motion, store.map_scale), store.map_full_scale))
                found.append(self._detect(motion))
        return found, maps, flows

    def _flows(self, pairs: Sequence[tuple[Frame, Frame]]) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the flow of each pair, in order; those of the end of the block before are taken from there."""
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

    def _detect(self, motion: npt.NDArray[np.float32]) -> _Found:
        detection = detect_frame(motion, self._config.contours)
        box = np.array(detection.box_xyxy or NO_BOX, np.int16)
        height, width = motion.shape
        return _Found(scale_boxes(box, (width, height), self._display_wh), detection.energy, detection.confidence)


def _without_flow(times: npt.NDArray[np.float64]) -> BlockResult:
    """Return the rows of a block without any flow: a single picture that nothing follows."""
    count = len(times)
    return BlockResult(
        times=times,
        boxes=np.full((count, 4), NO_BOX, np.int16),
        energy=np.zeros(count, np.float32),
        confidence=np.zeros(count, np.float32),
        origin=np.full(count, LAST, np.uint8),
        map_index=np.full(count, -1, np.int32),
        maps=[],
        flows=[],
    )
