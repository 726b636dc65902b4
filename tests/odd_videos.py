"""Videos that are odd in one way each, written with PyAV: what one reader must read alike from everywhere."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from odd_containers import Part, join_parts, set_clusters_back, set_fragments_back

FPS = 20
NUM_FRAMES = 60
SIZE_WH = (96, 64)


def pictures(num_frames: int = NUM_FRAMES, size_wh: tuple[int, int] = SIZE_WH, seed: int = 0) -> list[np.ndarray]:
    """Return RGB frames: blocks of colour that shift from frame to frame; no two frames are alike."""
    width, height = size_wh
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 8, width // 8 + num_frames, 3), np.uint8)
    return [
        blocks[:, index : index + width // 8].repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
        for index in range(num_frames)
    ]


def add_video(
    container: av.container.OutputContainer,
    codec: str,
    *,
    size_wh: tuple[int, int] = SIZE_WH,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> av.VideoStream:
    stream = container.add_stream(codec, rate=FPS, options=options or {})
    stream.width, stream.height = size_wh
    stream.pix_fmt = pix_fmt
    return stream


def encode(
    stream: av.VideoStream, images: Iterable[np.ndarray], pts: Iterable[int] | None = None
) -> Iterator[av.Packet]:
    """Yield the packets of the images, shown at `pts` frame durations; with none: one after the other."""
    for image, shown in zip(images, pts or range(10**9), strict=False):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = shown, Fraction(1, FPS)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def plain(
    path: Path,
    codec: str,
    *,
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    pts: list[int] | None = None,
    mux_options: dict[str, str] | None = None,
) -> None:
    """Write one stream in one codec."""
    with av.open(str(path), "w", options=mux_options or {}) as container:
        stream = add_video(container, codec, options=options, pix_fmt=pix_fmt)
        for packet in encode(stream, pictures(), pts):
            container.mux(packet)


def with_edit_list(path: Path) -> None:
    """Begin 13 frames before zero, as a cut without coding anew does: an edit list hides them."""
    plain(path, "libx264", options={"g": "8", "bf": "2"}, pts=[index - 13 for index in range(NUM_FRAMES)])


def retimed(path: Path, shown_at: Callable[[int], int]) -> None:
    """Write a stream, and its packets again with other times, which may repeat."""
    plain(path, "mjpeg", pix_fmt="yuvj420p")
    rewritten = path.with_name(f"rewritten_{path.name}")
    with av.open(str(path)) as source, av.open(str(rewritten), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(source.demux(video=0)):
            if packet.size:
                packet.pts = packet.dts = round(shown_at(index) / FPS / packet.time_base)
                packet.stream = stream
                container.mux(packet)
    rewritten.replace(path)


def without_times(path: Path) -> None:
    """Leave two of three pictures of a transport stream without a timestamp: stuffing stands in its place."""
    plain(path, "mpeg2video", options={"g": "12"})
    data, count = bytearray(path.read_bytes()), 0
    for start in range(0, len(data), 188):
        if not data[start + 1] & 0x40:  # no unit begins in this packet
            continue
        place = start + 4 + (1 + data[start + 4] if data[start + 3] & 0x20 else 0)
        if data[place : place + 4] == b"\0\0\1\xe0":
            if count % 3:
                data[place + 7] &= 0x3F
                data[place + 9 : place + 9 + data[place + 8]] = b"\xff" * data[place + 8]
            count += 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    """Record a broadcast that is under way: the first 8 frames have no keyframe."""
    plain(path, "libx264", options={"g": "8", "bf": "2"})
    path.write_bytes(path.read_bytes()[20 * 188 :])


def late(path: Path) -> None:
    """Begin the picture 6 s after the sound."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        video = add_video(container, "libx264", options={"g": "8"})
        _silence(container, sound, 9)
        for packet in encode(video, pictures(), range(6 * FPS, 10**9)):
            container.mux(packet)


def _silence(container: av.container.OutputContainer, stream: av.AudioStream, seconds: int) -> None:
    for position in range(0, 44100 * seconds, 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 44100, position, Fraction(1, 44100)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def second_stream_is_default(path: Path) -> None:
    """Hold two streams of one size with other pictures; the second one is marked as the default."""
    with av.open(str(path), "w") as container:
        streams = [add_video(container, "libx264", options={"g": "8"}) for _ in range(2)]
        streams[0].disposition = av.stream.Disposition(0)
        streams[1].disposition = av.stream.Disposition.default
        packets = [encode(stream, pictures(seed=seed)) for seed, stream in enumerate(streams, start=1)]
        for packet in sorted((packet for own in packets for packet in own), key=lambda packet: packet.dts or 0):
            container.mux(packet)


def cover_first(path: Path, *, marked: bool) -> None:
    """Begin with a cover picture, marked as one or a stream of one picture."""
    with av.open(str(path), "w") as container:
        cover = add_video(container, "mjpeg", size_wh=(160, 160), pix_fmt="yuvj420p")
        cover.disposition = av.stream.Disposition.attached_pic if marked else av.stream.Disposition(0)
        video = add_video(container, "libx264", options={"g": "8"})
        video.disposition = av.stream.Disposition.default
        for packet in encode(cover, pictures(1, (160, 160), seed=9)):
            container.mux(packet)
        for packet in encode(video, pictures()):
            container.mux(packet)


def changing_size(
    path: Path, codec: str, options: dict[str, str], *, first: tuple[int, int], then: tuple[int, int]
) -> None:
    """Change the size of the picture in mid-stream."""
    half = NUM_FRAMES // 2
    with av.open(str(path), "w") as container:
        stream = add_video(container, codec, size_wh=first, options=options)
        for packet in encode(stream, pictures(half, first)):
            container.mux(packet)
        with av.open("/dev/null", "w", format="rawvideo" if codec != "libvpx-vp9" else "webm") as other:
            smaller = add_video(other, codec, size_wh=then, options=options)
            for packet in encode(smaller, pictures(half, then, seed=4), range(half, NUM_FRAMES)):
                packet.stream = stream
                container.mux(packet)


def turned(path: Path, degrees: int) -> None:
    """Ask for a turn clockwise in the track's header, as phones do."""
    plain(path, "libx264", options={"g": "8", "bf": "2"})
    data = bytearray(path.read_bytes())
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    a, b, c, d = (value << 16 for value in matrix)
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))


def two_descriptions(path: Path, *, then: tuple[int, int] = SIZE_WH) -> None:
    """Change the codec's settings, or the size too, half way: the header of the MP4 describes its samples twice."""
    half = NUM_FRAMES // 2
    halves = [
        (SIZE_WH, pictures()[:half], {}),
        (then, pictures(seed=0 if then == SIZE_WH else 4)[half:], OTHER_SETTINGS),
    ]
    parts = []
    for size_wh, images, options in halves:
        part = path.with_name(f"part_{path.name}")
        with av.open(str(part), "w") as container:
            stream = add_video(container, "libx264", size_wh=size_wh, options={"g": "8", "bf": "0", **options})
            for packet in encode(stream, [image[: size_wh[1], : size_wh[0]] for image in images]):
                container.mux(packet)
        parts.append(Part.of(part))
        part.unlink()
    path.write_bytes(join_parts(parts, SIZE_WH, FPS))


def two_codecs(path: Path) -> None:
    """Change the codec half way: no decoder opens such an MP4 track twice."""
    parts = []
    for codec in ("libx264", "mpeg4"):
        part = path.with_name(f"part_{path.name}")
        plain(part, codec, options={"g": "8", "bf": "0"})
        parts.append(Part.of(part))
        part.unlink()
    path.write_bytes(join_parts(parts, SIZE_WH, FPS))


def jumping_back(path: Path, back_frames: int, *, b_frames: int, from_frame: int = 30) -> None:
    """Let the times jump back, as where a recorder began again."""
    options = {"g": "8", "bf": str(b_frames)}
    matroska = {"cluster_time_limit": "400", "write_crc32": "0"}
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    plain(path, "libx264", options=options, mux_options=matroska if path.suffix == ".mkv" else fragments)
    with av.open(str(path)) as container:
        ticks = [round(frames / FPS / container.streams.video[0].time_base) for frames in (from_frame, back_frames)]
    change = set_clusters_back if path.suffix == ".mkv" else set_fragments_back
    path.write_bytes(change(path.read_bytes(), *ticks))


OTHER_SETTINGS = {"profile": "baseline", "x264-params": "cabac=0:ref=1"}
OPEN_GOP = {"g": "12", "bf": "3", "x264-params": "open-gop=1"}
VP9 = {"g": "10", "cpu-used": "8", "deadline": "realtime"}
UNEVEN = [index * 3 + index % 3 for index in range(NUM_FRAMES)]

WRITERS: dict[str, Callable[[Path], None]] = {
    "open_gop.mp4": lambda path: plain(path, "libx264", options=OPEN_GOP),
    "open_gop.mkv": lambda path: plain(path, "libx264", options=OPEN_GOP),
    "open_gop_hevc.mkv": lambda path: plain(
        path, "libx265", options={"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:log-level=none"}
    ),
    "open_gop_mpeg2.mkv": lambda path: plain(path, "mpeg2video", options={"g": "12", "bf": "2"}),
    "intra_refresh.mkv": lambda path: plain(path, "libx264", options={"g": "12", "x264-params": "intra-refresh=1"}),
    "one_keyframe.mp4": lambda path: plain(path, "libx264", options={"g": "999", "bf": "3"}),
    "fragments.mp4": lambda path: plain(
        path, "libx264", options={"g": "8", "bf": "2"}, mux_options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "plain.mov": lambda path: plain(path, "mpeg4", options={"g": "12", "bf": "2"}),
    "intra.mov": lambda path: plain(path, "prores", pix_fmt="yuv422p10le"),
    "vp8.webm": lambda path: plain(path, "libvpx", options=VP9),
    "vp9.webm": lambda path: plain(path, "libvpx-vp9", options=VP9),
    "no_index.webm": lambda path: plain(path, "libvpx-vp9", options=VP9, mux_options={"live": "1"}),
    "av1.mkv": lambda path: plain(path, "libsvtav1", options={"preset": "12", "g": "16", "svtav1-params": "lp=1"}),
    "lossless.mkv": lambda path: plain(path, "ffv1", options={"g": "1"}),
    "rgb.mkv": lambda path: plain(path, "ffv1", pix_fmt="bgr0"),
    "b_frames.avi": lambda path: plain(path, "mpeg4", options={"g": "12", "bf": "2"}),
    "h264.ts": lambda path: plain(path, "libx264", options={"g": "8", "bf": "2"}),
    "mpeg2.mpg": lambda path: plain(path, "mpeg2video", options={"g": "12", "bf": "2"}),
    "h264.flv": lambda path: plain(path, "libx264", options={"g": "8", "bf": "2"}),
    "edit_list.mp4": with_edit_list,
    "edit_list.mov": with_edit_list,
    "uneven.mkv": lambda path: plain(path, "libx264", options={"g": "8", "bf": "2"}, pts=UNEVEN),
    "uneven.mp4": lambda path: plain(path, "libx264", options={"g": "8", "bf": "2"}, pts=UNEVEN),
    "repeated_times.mkv": lambda path: retimed(path, lambda index: min(index, max(24, index - 2))),
    "no_times.mkv": lambda path: retimed(path, lambda _: 0),
    "begins_late.mkv": lambda path: plain(path, "libx264", options={"g": "8"}, pts=list(range(140, 140 + NUM_FRAMES))),
    "begins_between_keyframes.ts": cut,
    "without_times.ts": without_times,
    "late.mkv": late,
    "late.mp4": late,
    "two_streams.mkv": second_stream_is_default,
    "two_streams.mp4": second_stream_is_default,
    "cover.mkv": lambda path: cover_first(path, marked=False),
    "cover_marked.mp4": lambda path: cover_first(path, marked=True),
    "shrinks.ts": lambda path: changing_size(path, "libx264", {"g": "8"}, first=(96, 64), then=(64, 48)),
    "grows.mkv": lambda path: changing_size(path, "mpeg4", {"g": "8"}, first=(64, 48), then=(96, 64)),
    "shrinks.webm": lambda path: changing_size(path, "libvpx-vp9", VP9, first=(96, 64), then=(64, 48)),
    "two_descriptions.mp4": two_descriptions,
    "two_descriptions_shrinks.mp4": lambda path: two_descriptions(path, then=(64, 48)),
    "jumps_to_zero.mkv": lambda path: jumping_back(path, 30, b_frames=2),
    "jumps_back_a_second.mkv": lambda path: jumping_back(path, 20, b_frames=0),
    "jumps_back_four.mkv": lambda path: jumping_back(path, 4, b_frames=0),
    "jumps_back_two.mkv": lambda path: jumping_back(path, 2, b_frames=2),
    "turned_90.mp4": lambda path: turned(path, 90),
    "turned_180.mp4": lambda path: turned(path, 180),
    "turned_270.mov": lambda path: turned(path, 270),
}
"""File name -> what writes it."""
