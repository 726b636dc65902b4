"""Fixtures of the motionbox tests."""

import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

# An example that takes long on a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

VideoWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def testdata() -> Path:
    """Folder of real test videos: $MOTIONBOX_TESTDATA, else `../shared` beside the checkout."""
    given = os.environ.get("MOTIONBOX_TESTDATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[4] / "shared"
    if not folder.is_dir():
        pytest.skip(f"real test videos are not at {folder}; set MOTIONBOX_TESTDATA")
    return folder


@pytest.fixture(scope="session")
def write_video() -> VideoWriter:
    """Write grey or RGB uint8 frames (T, H, W[, 3]) to a video file and return its path."""

    def write(
        path: Path,
        frames: NDArray[np.uint8],
        *,
        fps: int = 12,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        pts: list[int] | None = None,
    ) -> Path:
        with av.open(path, "w") as container:
            stream = container.add_stream(codec, rate=fps, options=options or {})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = pix_fmt
            for position, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24" if image.ndim == 3 else "gray")
                frame.pts = position if pts is None else pts[position]
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write
