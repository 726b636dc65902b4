"""The rows of a work unit: filled block by block while it is processed, handed over as one `UnitResult`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.config import StoreConfig
from motionbox.errors import ClipError, Reason
from motionbox.store.units import Piece
from motionbox.store.writing.clip_writer import PieceClips
from motionbox.store.writing.commit import BLOCKS_SCHEMA, FRAMES_SCHEMA, UnitResult
from motionbox.store.writing.flow_writer import CodedFlow, FlowWriter
from motionbox.video.frames import VideoInfo

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

    def digest(self, info: VideoInfo, clip: bytes) -> bytes:
        """Return the 16-byte BLAKE2 digest of the block's content: every value, flow and coded frame."""
        digest = hashlib.blake2b(f"{info.width}x{info.height}".encode(), digest_size=16)
        for array in (self.times, self.boxes, self.energy, self.confidence, self.origin, self.map_index):
            digest.update(np.ascontiguousarray(array).tobytes())
        for stored in self.maps:
            digest.update(repr(stored.shape).encode() + stored.tobytes())
        for flow in self.flows:
            digest.update(repr(flow.size_hw).encode() + flow.digest)
        digest.update(clip)
        return digest.digest()


class UnitRows:
    """Columns of a unit's frames and rows of its blocks. Flows leave at once, through their writer.

    Attributes:
        num_frames: Frames so far.
    """

    def __init__(self, config: StoreConfig, flow_writer: FlowWriter | None) -> None:
        """Take what is kept and, where that includes flow, what takes it."""
        self._config = config
        self._flow_writer = flow_writer
        self._frames: dict[str, list[Any]] = {name: [] for name in FRAMES_SCHEMA.names}
        self._blocks: list[dict[str, Any]] = []
        self._maps: list[npt.NDArray[np.uint8]] = []
        self._clips: list[bytes] = []
        self._num_kept = 0
        self.num_frames = 0

    def add_block(
        self, piece: Piece, info: VideoInfo, number: int, result: BlockResult, clips: PieceClips | None
    ) -> None:
        """Append a block.

        Args:
            piece: The piece that the block is of.
            info: Its video.
            number: Block number.
            result: Its frames.
            clips: Holds the block's coded colour frames; None where none are kept.

        Raises:
            OSError: The flows cannot be written.
        """
        if self._flow_writer is not None:
            self._flow_writer.add(self._num_kept, result.flows)
        clip, clip_columns = self._add_clip(number, clips)
        self._add_frames(piece.video_id, result)
        map_height, map_width = result.maps[0].shape if result.maps else (0, 0)
        self._blocks.append(
            {
                "video_id": piece.video_id,
                "block": number,
                "num_frames": len(result.times),
                "width": info.width,
                "height": info.height,
                "fps": info.fps,
                "map_width": map_width,
                "map_height": map_height,
                "reason": "",
                "message": "",
                "digest": result.digest(info, clip),
                **clip_columns,
            }
        )

    def add_error(self, piece: Piece, number: int, reason: Reason, message: str) -> None:
        """Append a row that says what went wrong with a video, and in which block."""
        self._blocks.append(
            {
                "video_id": piece.video_id,
                "block": number,
                "num_frames": 0,
                "reason": str(reason),
                "message": message,
                "digest": hashlib.blake2b(str(reason).encode(), digest_size=16).digest(),
            }
        )

    def to_result(self) -> UnitResult:
        """Return everything as tables."""
        columns: dict[str, Any] = dict(self._frames)
        for name in ("energy", "confidence"):
            columns[name] = np.concatenate([np.empty(0, np.float32), *columns[name]])
        arrays = [
            pa.array(columns[entry.name], pa.string()).dictionary_encode()
            if entry.name == "video_id"
            else pa.array(columns[entry.name], entry.type)
            for entry in FRAMES_SCHEMA
        ]
        return UnitResult(
            frames=pa.Table.from_arrays(arrays, schema=FRAMES_SCHEMA),
            blocks=pa.Table.from_pylist(self._blocks, schema=BLOCKS_SCHEMA),
            maps=_pad_maps(self._maps) if self._config.motion_maps else None,
            clips=None if self._config.clips == "none" else b"".join(self._clips),
            flow=self._flow_writer,
        )

    def _add_frames(self, video_id: str, result: BlockResult) -> None:
        columns, offset = self._frames, self._num_kept
        columns["video_id"].extend([video_id] * len(result.times))
        columns["time_seconds"].extend(result.times.tolist())
        for position, name in enumerate(("x1", "y1", "x2", "y2")):
            columns[name].extend(None if value < 0 else value for value in result.boxes[:, position].tolist())
        columns["energy"].append(result.energy)
        columns["confidence"].append(result.confidence)
        columns["origin"].extend(result.origin.tolist())
        columns["map_index"].extend(None if index < 0 else index + offset for index in result.map_index.tolist())
        self._maps.extend(result.maps)
        self._num_kept += result.num_kept
        self.num_frames += len(result.times)

    def _add_clip(self, number: int, clips: PieceClips | None) -> tuple[bytes, dict[str, Any]]:
        """Keep a block's clip block, empty where it cannot be coded; return it with the columns that say so."""
        if clips is None:
            return b"", {}
        offset = sum(map(len, self._clips))
        error = ""
        try:
            data = clips.take(number)
        except ClipError as failure:
            data, error = b"", f"{failure.reason}: {failure.message}"
        self._clips.append(data)
        return data, {"clip_offset": offset, "clip_bytes": len(data), "clip_error": error}


def _pad_maps(maps: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Stack maps of several sizes, each in the upper left corner."""
    height = max((stored.shape[0] for stored in maps), default=1)
    width = max((stored.shape[1] for stored in maps), default=1)
    stacked = np.zeros((len(maps), height, width), np.uint8)
    for target, stored in zip(stacked, maps, strict=True):
        target[: stored.shape[0], : stored.shape[1]] = stored
    return stacked
