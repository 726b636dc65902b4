"""What extraction and store both speak of: pieces and units of work, the rows they give, the files they come from.

Every video is cut into **blocks** of `BLOCK_SECONDS` of its own time. A block's numbers depend on its frames, on
`CONTEXT_SECONDS` of frames before it and on the frames shortly after it, and on nothing else; so they are the same
however blocks are grouped. A **piece** is a run of blocks of one video, a **unit** is one or more pieces.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.errors import Reason
from motionbox.store.flow_form import CodedFlow
from motionbox.video.frames import VideoInfo

BLOCK_SECONDS = 4.0
CONTEXT_SECONDS = 1.0

PLAN_SCHEMA = pa.schema(
    [
        ("unit_id", pa.string()),
        ("video_id", pa.string()),
        ("path", pa.string()),
        ("first_block", pa.int64()),
        ("stop_block", pa.int64()),
        ("estimated_frames", pa.int64()),
        ("num_clips", pa.int64()),
        ("frame_fps", pa.float64()),
    ]
)

INPUTS_SCHEMA = pa.schema(
    [("path", pa.string()), ("kind", pa.string()), ("num_bytes", pa.int64()), ("modified_unix", pa.int64())]
)


@dataclass(frozen=True)
class Piece:
    """A run of blocks of one video.

    Attributes:
        video_id: The video.
        path: Its file or folder, relative to the data root.
        first_block: First block (time `first_block * BLOCK_SECONDS`); None: from the first frame.
        stop_block: The block after the last; None: to the last frame.
        estimated_frames: From header hints; may be wrong.
        num_clips: Number of clips that end in this piece, for progress.
        frame_fps: Rate of numbered frame files, None for videos.
    """

    video_id: str
    path: str
    first_block: int | None
    stop_block: int | None
    estimated_frames: int
    num_clips: int = 0
    frame_fps: float | None = None

    @property
    def start_seconds(self) -> float | None:
        """Return the time of its first block, None for the first frame."""
        return None if self.first_block is None else self.first_block * BLOCK_SECONDS

    @property
    def stop_seconds(self) -> float | None:
        """Return the time of the end of its last block, None for the last frame."""
        return None if self.stop_block is None else self.stop_block * BLOCK_SECONDS


@dataclass(frozen=True)
class Unit:
    """What one task does.

    Attributes:
        unit_id: Name in the store, `u000000` and on.
        pieces: What to process, in order.
    """

    unit_id: str
    pieces: tuple[Piece, ...]

    @property
    def estimated_frames(self) -> int:
        """Return the sum over its pieces."""
        return sum(piece.estimated_frames for piece in self.pieces)

    @property
    def num_clips(self) -> int:
        """Return the number of clips that end in this unit."""
        return sum(piece.num_clips for piece in self.pieces)


FLOW, REPEATED, LAST = 0, 1, 2
"""Where a frame's raw box comes from: its own flow, the frame that it repeats, or the flow before the last frame."""


@dataclass(frozen=True)
class BlockResult:
    """What one block of a video gives.

    Attributes:
        times: float64 (T,), seconds of the video.
        boxes: int16 (T, 4), raw frame boxes, xyxy half-open display pixels, -1 rows where a frame has none.
        energy: float32 (T,), mean of the frame's motion map.
        confidence: float32 (T,), in [0, 1], of the raw boxes.
        origin: uint8 (T,), `FLOW`, `REPEATED` or `LAST`.
        map_index: int32 (T,), position in `maps` and `flows`; -1 where a frame has no flow.
        maps: uint8 (h, w) motion maps as stored; none where the config keeps none.
        flows: Flows as stored; none where the config keeps none.
    """

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


@dataclass(frozen=True)
class BlockRows:
    """One block of a video on its way into the store.

    Attributes:
        video_id: The video.
        number: Block number.
        info: What the video is.
        result: What was found in the block.
        clip: Its colour frames as a clip block, empty where they cannot be coded; None where none are kept.
        clip_error: Why they cannot be coded.
    """

    video_id: str
    number: int
    info: VideoInfo
    result: BlockResult
    clip: bytes | None = None
    clip_error: str = ""

    def digest(self) -> bytes:
        """Return the 16-byte BLAKE2 digest of the block's content: every value, flow and coded frame."""
        result = self.result
        digest = hashlib.blake2b(f"{self.info.width}x{self.info.height}".encode(), digest_size=16)
        for array in (result.times, result.boxes, result.energy, result.confidence, result.origin, result.map_index):
            digest.update(np.ascontiguousarray(array).tobytes())
        for stored in result.maps:
            digest.update(repr(stored.shape).encode() + stored.tobytes())
        for flow in result.flows:
            digest.update(repr(flow.size_hw).encode() + flow.digest)
        digest.update(self.clip or b"")
        return digest.digest()


@dataclass(frozen=True)
class VideoError:
    """What went wrong with a video.

    Attributes:
        video_id: The video.
        number: The block that was being read.
        reason: Machine-readable code.
        message: One line for the user.
    """

    video_id: str
    number: int
    reason: Reason
    message: str


@dataclass(frozen=True)
class InputFile:
    """An input file or folder as found when the run was planned.

    Attributes:
        path: Relative to the data root.
        kind: `file`, `folder` or `missing`.
        num_bytes: Size of a file; number of entries of a folder.
        modified_unix: Time of its last change, whole seconds; 0 for an object in a bucket.
        etag: What a bucket's provider calls an object's content; None for files, and where it does not say.
    """

    path: str
    kind: str
    num_bytes: int
    modified_unix: int
    etag: str | None = None


def inputs_table(inputs: Sequence[InputFile]) -> pa.Table:
    """Return the inputs as a table with `INPUTS_SCHEMA`, and a column `etag` where any has one."""
    schema = INPUTS_SCHEMA
    if any(entry.etag is not None for entry in inputs):
        schema = schema.append(pa.field("etag", pa.string()))
    return pa.Table.from_pylist([vars(entry) for entry in inputs], schema=schema)


def units_of(plan: pa.Table) -> list[Unit]:
    """Return the units of a plan table, in its order."""
    pieces: dict[str, list[Piece]] = {}
    for row in plan.to_pylist():
        unit_id = row.pop("unit_id")
        pieces.setdefault(unit_id, []).append(Piece(**row))
    return [Unit(unit_id, tuple(parts)) for unit_id, parts in pieces.items()]


def block_of(time_seconds: float) -> int:
    """Return the block that a time lies in."""
    return math.floor(time_seconds / BLOCK_SECONDS)


def stop_block_of(stop_seconds: float) -> int:
    """Return the block after the last one that a half-open range ending at `stop_seconds` touches."""
    return math.ceil(stop_seconds / BLOCK_SECONDS)
