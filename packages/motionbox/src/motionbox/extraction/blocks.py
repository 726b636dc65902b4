"""Cutting a stream of frames into blocks, each with the frames around it that its numbers depend on. See `plan`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from motionbox.errors import ClipError, Reason
from motionbox.store.units import BLOCK_SECONDS, CONTEXT_SECONDS, Piece, block_of
from motionbox.video.frames import Frame

# Frames after a block that its last flow and the duplicate finder may look at.
LOOKAHEAD_SECONDS = 1.0
# How far the one frame after that may be away in a time lapse.
SPARSE_SECONDS = 10.0
# More frames than this in one block (1,024 per second) are a broken clock, not a video.
MAX_BLOCK_FRAMES = 4096


@dataclass(frozen=True)
class Block:
    """The frames of one block and around it.

    Attributes:
        number: Block number.
        frames: Context, own frames, frames after; in order of time.
        first: Index of the first own frame.
        stop: Index after the last own frame.
    """

    number: int
    frames: tuple[Frame, ...]
    first: int
    stop: int


def iter_blocks(frames: Iterator[Frame], piece: Piece, lookahead_seconds: float) -> Iterator[Block]:
    """Group a piece's frames to blocks, each with the frames around it.

    Args:
        frames: In order of time, from `CONTEXT_SECONDS` before the piece.
        piece: Which blocks are wanted.
        lookahead_seconds: How far after a block's end frames are kept with it.

    Yields:
        Blocks that have frames of their own, in order; those that came before an error first, then the error.

    Raises:
        ClipError: As raised by `frames`; or a block holds more than `MAX_BLOCK_FRAMES`.
    """
    window = _Window(piece, lookahead_seconds)
    failure: ClipError | None = None
    for item in _with_failure(frames):
        if isinstance(item, ClipError):
            failure = item
        else:
            yield from window.push(item)
        if window.done:
            return
    yield from window.flush()
    if failure is not None:
        raise failure


def _with_failure(frames: Iterator[Frame]) -> Iterator[Frame | ClipError]:
    """Yield frames, and last the error that ended them, if one did."""
    try:
        yield from frames
    except ClipError as error:
        yield error


class _Window:
    """The frames around one block: it takes frames as they come, gives the block once it is whole, and moves on."""

    def __init__(self, piece: Piece, lookahead_seconds: float) -> None:
        self._frames: list[Frame] = []
        self._number = piece.first_block  # None until the first frame says where its video begins
        self._stop = piece.stop_block
        self._lookahead_seconds = lookahead_seconds

    @property
    def done(self) -> bool:
        """Return whether the piece's last block has been given."""
        return self._number is not None and self._stop is not None and self._number >= self._stop

    def push(self, frame: Frame) -> Iterator[Block]:
        """Take the next frame; yield the blocks that need no later one."""
        self._frames.append(frame)
        number = block_of(frame.time_seconds) if self._number is None else self._number
        self._number = number
        while not self.done and frame.time_seconds >= (number + 1) * BLOCK_SECONDS + self._lookahead_seconds:
            yield from self._cut(number)
            number = self._move_on(number + 1)
        if len(self._frames) > 2 * MAX_BLOCK_FRAMES:
            raise ClipError(
                Reason.UNSUPPORTED,
                f"more than {MAX_BLOCK_FRAMES // int(BLOCK_SECONDS)} frames per second: the video's times are wrong; "
                "write it anew",
            )

    def flush(self) -> Iterator[Block]:
        """Yield what is left when no further frame comes."""
        while self._frames and not self.done and (self._number or 0) <= block_of(self._frames[-1].time_seconds):
            number = self._number or 0
            yield from self._cut(number)
            self._number = number + 1

    def _move_on(self, number: int) -> int:
        """Drop what lies before a block and its context; return its number, or that of the next one with a frame."""
        begin = number * BLOCK_SECONDS - CONTEXT_SECONDS
        newest = self._frames[-1]
        self._frames = [kept for kept in self._frames if kept.time_seconds >= begin]
        if self._frames[0] is newest:  # a gap: nothing of the blocks before the newest frame's will come
            number = max(number, block_of(newest.time_seconds))
        self._number = number
        return number

    def _cut(self, number: int) -> Iterator[Block]:
        """Yield a block with the frames around it, unless it has no frame of its own."""
        begin, end = number * BLOCK_SECONDS, (number + 1) * BLOCK_SECONDS
        kept = [frame for frame in self._frames if frame.time_seconds >= begin - CONTEXT_SECONDS]
        first = sum(frame.time_seconds < begin for frame in kept)
        stop = sum(frame.time_seconds < end for frame in kept)
        if stop > first:
            yield Block(number, tuple(kept), first, stop)
