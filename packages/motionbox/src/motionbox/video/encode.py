"""Encode pictures: MP4 and WebM videos, looping GIFs and PNG files, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, cast

import av
import av.filter
import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.errors import InputError
from motionbox.output import whole_file

Picture = NDArray[np.uint8]

SUFFIXES = (".mp4", ".gif", ".png")
_SHOW_OPTIONS = {"crf": "18", "preset": "medium", "tune": "animation", "movflags": "+faststart"}


def encode_video(
    target: str | IO[bytes],
    frames: Iterable[Picture],
    fps: float,
    *,
    container: str = "mp4",
    codec: str = "libx264",
    options: Mapping[str, str] = _SHOW_OPTIONS,
    keyframe_interval: int = 48,
    num_threads: int = 1,
) -> None:
    """Encode frames to a video.

    Args:
        target: Path, or a seekable binary file.
        frames: (H, W, 3) uint8 RGB, all of one size; an odd last row or column is repeated once.
        fps: Frames per second.
        container: FFmpeg's name of the container.
        codec: FFmpeg's name of the encoder.
        options: Options of the encoder.
        keyframe_interval: Most frames from one keyframe to the next.
        num_threads: One gives the same file for the same frames.

    Raises:
        ValueError: There is no frame.
    """
    stream: av.VideoStream | None = None
    with av.open(target, "w", format=container, options={"fflags": "+bitexact"}) as output:
        for pixels in frames:
            picture = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = _add_stream(output, codec, fps, options, picture)
                stream.codec_context.gop_size = keyframe_interval
                stream.codec_context.thread_count = num_threads
            # Converted here and not by the encoder: its threads sometimes give other pixels for the same frame.
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt, threads=1)
            output.mux(stream.encode(frame))
        if stream is None:
            raise ValueError("frames must hold at least one frame, got none")
        output.mux(stream.encode())


def _add_stream(
    output: Any, codec: str, fps: float, options: Mapping[str, str], picture: Picture, pixel_format: str = "yuv420p"
) -> av.VideoStream:
    stream: av.VideoStream = output.add_stream(codec, rate=_rate(fps), options=dict(options))
    stream.height, stream.width = picture.shape[:2]
    stream.pix_fmt = pixel_format
    return stream


def _rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)


def encode_gif(target: str | IO[bytes], frames: Iterable[Picture], fps: float) -> None:
    """Encode frames to a GIF that loops for ever, in the 256 colours that suit the whole of it best.

    Args:
        target: Path, or a seekable binary file.
        frames: (H, W, 3) uint8 RGB, all of one size.
        fps: Frames per second; GIF players show at most 50.

    Raises:
        ValueError: There is no frame.
    """
    stream: av.VideoStream | None = None
    with av.open(target, "w", format="gif", options={"loop": "0"}) as output:
        graph: av.filter.Graph | None = None
        for index, pixels in enumerate(frames):
            if stream is None or graph is None:
                stream = _add_stream(output, "gif", fps, {}, pixels, "pal8")
                graph = _palette_graph(pixels, fps)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = index, 1 / _rate(fps)
            graph.push(frame)
            for reduced in _pulled(graph):
                output.mux(stream.encode(reduced))
        if stream is None or graph is None:
            raise ValueError("frames must hold at least one frame, got none")
        graph.push(None)
        for reduced in _pulled(graph):
            output.mux(stream.encode(reduced))
        output.mux(stream.encode())


def _palette_graph(pixels: Picture, fps: float) -> av.filter.Graph:
    """Return the filters that reduce a video to the best 256 colours: split -> palettegen -> paletteuse."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=pixels.shape[1],
        height=pixels.shape[0],
        format=av.VideoFormat("rgb24"),
        time_base=1 / _rate(fps),
        name="in",
    )
    split = graph.add("split")
    generate = graph.add("palettegen")
    use = graph.add("paletteuse", "dither=bayer:bayer_scale=3:diff_mode=rectangle")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(generate, 1, 0)
    generate.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph


def _pulled(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            frame = cast(av.VideoFrame, graph.pull())
        except (av.BlockingIOError, av.EOFError):
            return
        frame.pict_type = 0  # the encoder chooses
        yield frame


def write_file(path: Path, frames: Iterable[Picture], fps: float) -> None:
    """Write an MP4 or GIF of all frames, or a PNG of the first one; the file appears when it is complete.

    Args:
        path: Its suffix, one of `SUFFIXES`, decides.
        frames: (H, W, 3) uint8 RGB, all of one size.
        fps: Frames per second.

    Raises:
        InputError: Another suffix, or the file cannot be written.
        ValueError: There is no frame.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"output file must end in {', '.join(SUFFIXES)}, got {str(path)!r}")
    with whole_file(path) as unfinished:
        if suffix == ".mp4":
            encode_video(str(unfinished), frames, fps)
        elif suffix == ".gif":
            encode_gif(str(unfinished), frames, fps)
        else:
            unfinished.write_bytes(encode_image(next(iter(frames))))


def encode_image(picture: Picture, suffix: str = ".png", *, quality: int | None = None) -> bytes:
    """Encode one picture.

    Args:
        picture: (H, W, 3) uint8 RGB.
        suffix: `.png`, `.jpg` or `.webp`.
        quality: 1 to 100 for `.jpg` and `.webp`.
    """
    flags = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
    settings = [] if quality is None else [flags[suffix], quality]
    return bytes(cv2.imencode(suffix, np.ascontiguousarray(picture[..., ::-1]), settings)[1].tobytes())
