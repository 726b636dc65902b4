"""Flow in the store: a unit's flows are written as they come, so that memory holds one block of them.

`flow.zarr` in a unit's attempt is a Zarr 3 group with one array for each frame size, named `<height>x<width>`, of shape
(N, 2, height, width): number n is the flow of the frames whose `map_index` is n, u before v. Each flow is a chunk, all
chunks of an array are one shard. Shards are put together here, because Zarr itself writes a shard at once or again and
again; `zarr.open_group` reads them as any other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motionbox.storage.failpoints import failpoint
from motionbox.storage.files import fsync_directory, make_directory, sha256_hex, write_file
from motionbox.store.flow_form import CodedFlow, FlowForm, compressor, fill_value
from motionbox.store.layout import FLOW_DIRECTORY

if TYPE_CHECKING:
    pass

_ABSENT = np.iinfo(np.uint64).max


@dataclass
class _Shard:
    """An array's shard while it grows: (offset, bytes) of each chunk by number, and the digest of all bytes so far."""

    ranges: dict[int, tuple[int, int]] = field(default_factory=dict)
    num_bytes: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)


class FlowWriter:
    """Writes a unit's flows into its attempt directory as they come.

    Attributes:
        attempt: The attempt directory; made with the first flow.
    """

    def __init__(self, attempt: Path, form: FlowForm) -> None:
        self.attempt = attempt
        self._form: FlowForm = form
        self._shards: dict[tuple[int, int], _Shard] = {}

    def add(self, first: int, flows: Sequence[CodedFlow]) -> None:
        """Append flows, numbered from `first` on; numbers must rise from call to call.

        Raises:
            OSError: The disk is full or broken.
        """
        for size_hw in dict.fromkeys(flow.size_hw for flow in flows):
            shard = self._shards.setdefault(size_hw, _Shard())
            begin, parts = shard.num_bytes, []
            for number, flow in enumerate(flows, first):
                if flow.size_hw == size_hw:
                    shard.ranges[number] = (shard.num_bytes, len(flow.data))
                    shard.num_bytes += len(flow.data)
                    parts.append(flow.data)
            self._append(size_hw, b"".join(parts), begin)

    def finish(self) -> dict[str, dict[str, Any]]:
        """Complete the shards and force everything to disk.

        Returns:
            Path relative to the attempt -> {bytes, sha256}, of what was meant to be written.

        Raises:
            OSError: The disk is full or broken.
        """
        files = self._metadata()
        for (height, width), shard in self._shards.items():
            index = np.full((max(shard.ranges) + 1, 2), _ABSENT, "<u8")
            for number, (offset, length) in shard.ranges.items():
                if length:
                    index[number] = offset, length
            data_end = shard.num_bytes
            shard.num_bytes += index.nbytes
            self._append((height, width), index.tobytes(), data_end, sync=True)
        entries = {name: {"bytes": len(data), "sha256": sha256_hex(data)} for name, data in files.items()}
        for name, data in files.items():
            make_directory((self.attempt / name).parent)
            write_file(self.attempt / name, data)
        for size_hw, shard in self._shards.items():
            path = _shard_path(size_hw)
            entries[path] = {"bytes": shard.num_bytes, "sha256": shard.sha256.hexdigest()}
            fsync_directory((self.attempt / path).parent)
        return entries

    def _append(self, size_hw: tuple[int, int], data: bytes, offset: int, *, sync: bool = False) -> None:
        path = self.attempt / _shard_path(size_hw)
        if offset == 0 and not path.parent.is_dir():
            make_directory(path.parent)
        failpoint("flow.write")
        half = len(data) // 2
        with path.open("ab") as file:
            file.write(data[:half])
            file.flush()
            failpoint("flow.torn")
            file.write(data[half:])
            if sync:
                file.flush()
                failpoint("flow.fsync")
                os.fsync(file.fileno())
        self._shards[size_hw].sha256.update(data)

    def _metadata(self) -> dict[str, bytes]:
        """Return the files in which Zarr describes the group and its arrays."""
        import zarr
        from zarr.codecs import BytesCodec, ShardingCodec
        from zarr.storage import MemoryStore

        memory: dict[str, Any] = {}
        group = zarr.open_group(MemoryStore(memory), mode="w", zarr_format=3)
        for (height, width), shard in self._shards.items():
            shape = (max(shard.ranges) + 1, 2, height, width)
            chunk = (1, 2, height, width)
            codecs = [BytesCodec(), compressor(self._form)]
            sharding = ShardingCodec(chunk_shape=chunk, codecs=codecs, index_codecs=[BytesCodec()])
            group.create_array(
                f"{height}x{width}",
                shape=shape,
                chunks=shape,
                dtype=self._form,
                serializer=sharding,
                compressors=None,
                fill_value=fill_value(self._form),
            )
        return {f"{FLOW_DIRECTORY}/{key}": buffer.to_bytes() for key, buffer in sorted(memory.items())}


def _shard_path(size_hw: tuple[int, int]) -> str:
    return f"{FLOW_DIRECTORY}/{size_hw[0]}x{size_hw[1]}/c/0/0/0/0"
