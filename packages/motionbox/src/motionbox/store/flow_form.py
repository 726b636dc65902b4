"""The forms in which a store keeps flow: how one flow is coded, and back to pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import zarr

FlowForm = Literal["float16", "uint8"]

ZERO = 128
"""What stands for no motion in the form `uint8`."""
_STEPS = 127


def quantise_flow(flow: npt.NDArray[np.float32], form: FlowForm, bound_px: float) -> npt.NDArray[Any]:
    """Return a flow as the store keeps it.

    Args:
        flow: float32 (H, W, 2), pixels.
        form: `float16`, or `uint8`: 128 + round(127 * v / bound), so that no motion stays exactly zero.
        bound_px: Larger displacements saturate in `uint8`; smaller ones are off by at most bound / 254.

    Returns:
        float16 or uint8 (2, H, W), u before v.
    """
    planes = np.moveaxis(flow, 2, 0)
    if form == "float16":
        return np.ascontiguousarray(planes, np.float16)
    scaled = np.clip(planes, -bound_px, bound_px) * np.float32(_STEPS / bound_px)
    return np.ascontiguousarray(np.rint(scaled) + ZERO, np.uint8)


def dequantise_flow(stored: npt.NDArray[Any], form: FlowForm, bound_px: float) -> npt.NDArray[np.float32]:
    """Return stored flows (..., 2, H, W) as float32 (..., H, W, 2) in pixels."""
    flow = np.moveaxis(stored, -3, -1).astype(np.float32)
    return flow if form == "float16" else (flow - ZERO) * np.float32(bound_px / _STEPS)


@dataclass(frozen=True)
class CodedFlow:
    """One flow, ready to be written.

    Attributes:
        size_hw: Height and width.
        data: The chunk's bytes; empty where nothing moves.
        digest: 16-byte BLAKE2 digest of the values, whatever the compression.
    """

    size_hw: tuple[int, int]
    data: bytes
    digest: bytes


class FlowCoder:
    """Codes flows one at a time, as chunks of the arrays that `writing.flow_writer` writes."""

    def __init__(self, form: FlowForm, bound_px: float) -> None:
        """Take the form and the bound of `quantise_flow`."""
        self._form: FlowForm = form
        self._bound_px = bound_px
        self._chunks: dict[tuple[int, int], tuple[zarr.Array[Any], dict[str, Any]]] = {}

    def code(self, flow: npt.NDArray[np.float32]) -> CodedFlow:
        """Code a float32 (H, W, 2) flow in pixels."""
        return self.code_stored(quantise_flow(flow, self._form, self._bound_px))

    def code_stored(self, stored: npt.NDArray[Any]) -> CodedFlow:
        """Code a flow as `quantise_flow` returns it, (2, H, W), or as an array of a store holds it."""
        height, width = stored.shape[1:]
        array, memory = self._chunk(height, width)
        array[0] = stored
        chunk = memory.get("chunk/c/0/0/0/0")
        digest = hashlib.blake2b(stored.tobytes(), digest_size=16).digest()
        return CodedFlow((height, width), b"" if chunk is None else chunk.to_bytes(), digest)

    def _chunk(self, height: int, width: int) -> tuple[zarr.Array[Any], dict[str, Any]]:
        """Return an array of one chunk in memory, and that memory: what Zarr writes there is a chunk's bytes."""
        if (height, width) not in self._chunks:
            import zarr
            from zarr.storage import MemoryStore

            memory: dict[str, Any] = {}
            group = zarr.open_group(MemoryStore(memory), mode="w", zarr_format=3)
            shape = (1, 2, height, width)
            array = group.create_array(
                "chunk",
                shape=shape,
                chunks=shape,
                dtype=self._form,
                compressors=compressor(self._form),
                fill_value=fill_value(self._form),
            )
            self._chunks = {(height, width): (array, memory)}
        return self._chunks[height, width]


def compressor(form: FlowForm) -> Any:
    """Return the codec of a chunk, `zarr.codecs.BloscCodec`."""
    from zarr.codecs import BloscCodec

    return BloscCodec(typesize=np.dtype(form).itemsize, cname="zstd", clevel=3, shuffle="shuffle")


def fill_value(form: FlowForm) -> int:
    """Return what stands for no motion."""
    return 0 if form == "float16" else ZERO
