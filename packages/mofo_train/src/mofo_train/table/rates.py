"""Measured rates of machines, and the sizes of data sets, for plans of what is not there.

Every rate stands in `docs/how-fast.md` with the command that repeats it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What one device does.

    Attributes:
        unit: What a device is called.
        crops_per_second: ViT-B pretraining, 16 x 224 x 224, 90 % hidden, data on the device.
        pixels_per_second: Whole extraction (TV-L1, default), pixels of the frames at working size; on a GPU with the
            cores that it needs.
        samples_per_core_second: Samples that a core makes for it, read from a store's H.264 clips, one crop each.
        where: Where each of the three was measured.
    """

    unit: str
    crops_per_second: float
    pixels_per_second: float
    samples_per_core_second: float
    where: tuple[str, str, str]


@dataclass(frozen=True)
class DataSetSize:
    """An official data set.

    Attributes:
        train_clips: Number of clips of the training split.
        test_clips: Number of clips of the split that figures are given for.
        frames: Number of frames of all videos.
        frame_wh: Working size of most.
        store_bytes_per_frame: Boxes, maps and indices, as stores of that shape had.
        clip_bytes_per_frame: H.264 clips (`--clips`), as videos of that kind had.
    """

    train_clips: int
    test_clips: int
    frames: int
    frame_wh: tuple[int, int]
    store_bytes_per_frame: float
    clip_bytes_per_frame: float


_H100_LOADER = "14 workers beside one H100, 826 clips/s"
_H100_FLOW = "one H100, five processes and 240p video, 1,098 frames/s"
MACHINES: dict[str, Machine] = {
    "h100": Machine(
        "H100",
        1340.0,
        1098.0 * 426 * 240,
        826 / 14,
        ("one H100, bf16, compiled, batch 256", _H100_FLOW, _H100_LOADER),
    ),
    "h200": Machine(
        "H200",
        1471.0,
        1098.0 * 426 * 240,
        826 / 14,
        ("one H200, bf16, compiled, batch 256", f"{_H100_FLOW}; the H200's flow is as fast", _H100_LOADER),
    ),
    "cpu": Machine(
        "core",
        2 / 1.75,
        456 * 256 / (36.3e-3 + 2.1e-3),
        144.2,
        (
            "one core of an AMD EPYC (Zen 5), bf16, batch 2",
            "one core of an AMD EPYC, flow (Zen 5) and the steps after it (Zen 4) of a 456x256 frame, without decoding",
            "one core of an AMD EPYC (Zen 4)",
        ),
    ),
}
DATA_SETS: dict[str, DataSetSize] = {
    "ssv2": DataSetSize(168_913, 24_777, 9_900_000, (427, 240), 1.5e9 / 9.9e6, 2880.0),
    "epic100": DataSetSize(67_217, 9_668, 19_813_555, (456, 256), 0.3e9 / 2.0e6, 228e3 / 59.94),
}
