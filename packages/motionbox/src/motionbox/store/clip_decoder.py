"""Decoders that stay open from one clip block to the next of the same kind, since opening one costs as much as a frame.

An H.264 decoder remembers the parameter sets that it has seen. So it is lent only where they are the same to the bit:
a block whose own are damaged gets a decoder that knows none, and fails.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.reformatter import VideoReformatter

_CODECS = {"jpeg": "mjpeg", "h264": "h264"}
_MOST_IDLE = 4  # each holds a few frames
_Key = tuple[str, tuple[int, int], bytes]


@dataclass(frozen=True)
class Decoder:
    """A decoder of one thread and a converter of its pictures.

    Attributes:
        codec: Decodes.
        reformatter: Converts; keeps its tables while pictures have one size.
    """

    codec: VideoCodecContext
    reformatter: VideoReformatter


_idle: OrderedDict[_Key, Decoder] = OrderedDict()


@contextmanager
def borrow_decoder(form: str, size_wh: tuple[int, int], parameters: bytes) -> Iterator[Decoder]:
    """Lend a decoder that remembers no frame; where the block raises it is thrown away. Safe in several threads.

    Args:
        form: `jpeg` or `h264`.
        size_wh: Width and height of the pictures.
        parameters: What a decoder remembers beyond its frames: the parameter sets of H.264.
    """
    key = form, size_wh, parameters
    decoder = _idle.pop(key, None) or _open(form)
    yield decoder
    decoder.codec.flush_buffers()
    _idle[key] = decoder
    while len(_idle) > _MOST_IDLE:
        _idle.popitem(last=False)


def _open(form: str) -> Decoder:
    import av
    from av.video.reformatter import VideoReformatter

    codec = cast("VideoCodecContext", av.CodecContext.create(_CODECS[form], "r"))
    codec.thread_count = 1
    return Decoder(codec, VideoReformatter())
