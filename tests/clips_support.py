"""Samples and batches of the small generated store, for tests of what reads it."""

from __future__ import annotations

from pathlib import Path

import torch

from mofo_train.config import DataConfig, GuidanceConfig, ModelConfig
from mofo_train.data.dataset import MotionRead, PretrainClips
from mofo_train.data.loader import Batch
from mofo_train.data.reader import ClipReader
from motionbox.store import open_store

MODEL = ModelConfig(name="videomae_tiny", num_frames=4, image_px=64)
DATA = DataConfig(dataset="synthetic", stride_frames=2, short_side_px=80, crops_per_clip=2, num_workers=0)


AREA = GuidanceConfig(kind="area")


def reader(store_path: Path, root: Path | None = None, guidance: GuidanceConfig | None = None) -> ClipReader:
    folder = root or store_path.parent / "synthetic"
    return ClipReader(open_store(store_path), folder, split=None, short_side_px=80, guidance=guidance)


def dataset(
    store_path: Path,
    root: Path | None = None,
    seed: int = 0,
    reads: MotionRead = "maps",
    guidance: GuidanceConfig | None = None,
) -> PretrainClips:
    return PretrainClips(reader(store_path, root, guidance), MODEL, DATA, seed=seed, reads=reads, patch_px=16)


def same(one: Batch, other: Batch) -> bool:
    return one.clips == other.clips and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("frames", "boxes", "areas", "motion")
    )
