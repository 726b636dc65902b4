"""What the header of a JPEG or PNG file says, read without decoding it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_ORIENTATION_TAG = 0x0112
# EXIF's orientation -> (counter-clockwise quarter turns, mirrored left to right before them)
_ORIENTATIONS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (3, False), 7: (3, True), 8: (1, False)}


def is_png(data: bytes) -> bool:
    """Tell whether the bytes begin like a PNG file."""
    return data.startswith(_PNG_MAGIC)


def is_cut_jpeg(data: bytes) -> bool:
    """Tell whether a JPEG file has no end marker behind its last scan: a decoder would fill up what is missing."""
    return not is_png(data) and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) from a PNG's or JPEG's header, None where it is neither."""
    if is_png(data):
        return struct.unpack(">II", data[16:24]) if len(data) >= 24 else None
    for marker, position, _ in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and position + 5 <= len(data):
            height, width = struct.unpack(">HH", data[position + 1 : position + 5])
            return width, height
    return None


def image_orientation(data: bytes) -> tuple[int, bool]:
    """Return how a JPEG or PNG is made upright by its EXIF tag: quarter turns counter-clockwise, mirrored before."""
    tiff = b""
    if is_png(data):
        place = data.find(b"eXIf", 0, 1 << 16)
        tiff = data[place + 4 :] if place > 0 else b""
    else:
        for marker, position, length in _segments(data):
            if marker == 0xE1 and data[position : position + 6] == b"Exif\0\0":
                tiff = data[position + 6 : position + length]
                break
    return _ORIENTATIONS.get(_orientation_tag(tiff), (0, False))


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, position and length of the content of a JPEG's segments up to its first scan."""
    position = 2
    if not data.startswith(b"\xff\xd8"):
        return
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xDA:
            return
        length = struct.unpack(">H", data[position + 2 : position + 4])[0]
        yield marker, position + 4, length - 2
        position += 2 + length


def _orientation_tag(tiff: bytes) -> int:
    """Return the orientation of a TIFF header's first directory, 1 (upright) where it says none."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is not None:
            (place,) = struct.unpack_from(f"{order}I", tiff, 4)
            (count,) = struct.unpack_from(f"{order}H", tiff, place)
            for entry in range(place + 2, place + 2 + 12 * count, 12):
                tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
                if tag == _ORIENTATION_TAG:
                    return int(value)
    except struct.error:
        pass
    return 1
