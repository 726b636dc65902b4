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
    buffer: list[Frame] = []
    current: int | None = piece.first_block
    failure: ClipError | None = None
    while True:
        try:
            frame = next(frames, None)
        except ClipError as error:
            failure, frame = error, None
        if frame is None:
            break
        buffer.append(frame)
        if current is None:
            current = block_of(frame.time_seconds)
            if piece.stop_block is not None and current >= piece.stop_block:
                return
        while frame.time_seconds >= (current + 1) * BLOCK_SECONDS + lookahead_seconds:
            yield from _cut(buffer, current)
            current += 1
            buffer = [kept for kept in buffer if kept.time_seconds >= current * BLOCK_SECONDS - CONTEXT_SECONDS]
            if buffer[0] is frame:
                current = max(current, block_of(frame.time_seconds))
            if piece.stop_block is not None and current >= piece.stop_block:
                return
        if len(buffer) > 2 * MAX_BLOCK_FRAMES:
            raise ClipError(
                Reason.UNSUPPORTED, f"more than {MAX_BLOCK_FRAMES // int(BLOCK_SECONDS)} frames per second of video"
            )
    last = block_of(buffer[-1].time_seconds) if buffer else -1
    while current is not None and current <= last and (piece.stop_block is None or current < piece.stop_block):
        yield from _cut(buffer, current)
        current += 1
    if failure is not None:
        raise failure


def _cut(buffer: list[Frame], number: int) -> Iterator[Block]:
    begin, end = number * BLOCK_SECONDS, (number + 1) * BLOCK_SECONDS
    kept = [frame for frame in buffer if frame.time_seconds >= begin - CONTEXT_SECONDS]
    first = sum(frame.time_seconds < begin for frame in kept)
    stop = sum(frame.time_seconds < end for frame in kept)
    if stop > first:
        yield Block(number, tuple(kept), first, stop)
