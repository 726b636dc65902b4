"""Containers that no muxer of FFmpeg writes: MP4 whose codec settings change half way, times that jump back."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av

_CLUSTER, _CLUSTER_TIME = b"\x1f\x43\xb6\x75", 0xE7
_UNTURNED = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


@dataclass(frozen=True)
class Part:
    """The packets of an MP4 file, each with whether it is a keyframe, and how its header describes them."""

    description: bytes
    packets: Sequence[tuple[bytes, bool]]

    @classmethod
    def of(cls, path: Path) -> Part:
        data = path.read_bytes()
        start = data.index(b"stsd") + 12
        with av.open(str(path)) as container:
            packets = [(bytes(packet), packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
        return cls(data[start : start + int.from_bytes(data[start : start + 4], "big")], packets)


def join_parts(parts: Sequence[Part], size_wh: tuple[int, int], fps: int) -> bytes:
    """Return an MP4 of one track in which each part has its own sample description, without B-frames."""
    start = _box(b"ftyp", b"isom", _u32(512), b"isomiso2avc1mp41")
    media = _box(b"mdat", *[data for part in parts for data, _ in part.packets])
    header = _header(parts, len(start) + 8, size_wh, fps)
    return start + media + header


def _header(parts: Sequence[Part], media_start: int, size_wh: tuple[int, int], fps: int) -> bytes:
    packets = [packet for part in parts for packet in part.packets]
    count = len(packets)
    places = [
        media_start + sum(len(data) for before in parts[:i] for data, _ in before.packets) for i in range(len(parts))
    ]
    chunks = [value for i, part in enumerate(parts, 1) for value in (i, len(part.packets), i)]
    keyframes = [number for number, (_, key) in enumerate(packets, 1) if key]
    table = _box(
        b"stbl",
        _full(b"stsd", _u32(len(parts)), *[part.description for part in parts]),
        _full(b"stts", _u32(1, count, 1)),
        _full(b"stss", _u32(len(keyframes), *keyframes)),
        _full(b"stsc", _u32(len(parts), *chunks)),
        _full(b"stsz", _u32(0, count, *[len(data) for data, _ in packets])),
        _full(b"stco", _u32(len(parts), *places)),
    )
    references = _box(b"dinf", _full(b"dref", _u32(1), _full(b"url ", flags=1)))
    width, height = size_wh
    media = _box(
        b"mdia",
        _full(b"mdhd", _u32(0, 0, fps, count, 0x55C40000)),
        _full(b"hdlr", _u32(0), b"vide", bytes(13)),
        _box(b"minf", _full(b"vmhd", bytes(8), flags=1), references, table),
    )
    track = _full(b"tkhd", _u32(0, 0, 1, 0, count), bytes(16), _UNTURNED, _u32(width << 16, height << 16), flags=7)
    movie = _full(b"mvhd", _u32(0, 0, fps, count, 1 << 16), _u32(1 << 24), bytes(8), _UNTURNED, bytes(24), _u32(2))
    return _box(b"moov", movie, _box(b"trak", track, media))


def _box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def _full(kind: bytes, *content: bytes, flags: int = 0) -> bytes:
    return _box(kind, _u32(flags), *content)


def _u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def set_clusters_back(data: bytes, from_ms: int, back_ms: int) -> bytes:
    """Return a Matroska file whose clusters from a time on say earlier ones; written with `write_crc32=0`."""
    changed = bytearray(data)
    place = data.find(_CLUSTER)
    while place >= 0:
        start = place + 4 + _length_of_number(data[place + 4])
        if data[start] == _CLUSTER_TIME:
            own = slice(start + 2, start + 2 + (data[start + 1] & 0x7F))
            milliseconds = int.from_bytes(data[own], "big")
            if milliseconds >= from_ms:
                changed[own] = (milliseconds - back_ms).to_bytes(own.stop - own.start, "big")
        place = data.find(_CLUSTER, place + 4)
    return bytes(changed)


def _length_of_number(first_byte: int) -> int:
    return 9 - first_byte.bit_length()


def set_fragments_back(data: bytes, from_ticks: int, back_ticks: int) -> bytes:
    """Return a fragmented MP4 file whose fragments from a time on say earlier ones."""
    changed = bytearray(data)
    place = data.find(b"tfdt")
    while place >= 0:
        form = ">Q" if data[place + 4] == 1 else ">I"
        (ticks,) = struct.unpack_from(form, data, place + 8)
        if ticks >= from_ticks:
            struct.pack_into(form, changed, place + 8, ticks - back_ticks)
        place = data.find(b"tfdt", place + 4)
    return bytes(changed)
