"""Other systems' networks by name, for `mofo-train evaluate --system`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import nn

from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models.systems.bevt import load_bevt
from mofo_train.models.systems.omnimae import load_omnimae
from mofo_train.models.systems.omnivore import load_omnivore
from mofo_train.models.systems.st_mae import load_st_mae
from mofo_train.models.vit import VitSize

OtherSystem = Literal["st_mae", "omnimae", "omnivore", "bevt"]


def load_system(system: OtherSystem, path: Path, size: VitSize, clip: ClipShape, num_classes: int) -> nn.Module:
    """Read another system's finetuned weights.

    Args:
        system: Whose layout.
        path: The file.
        size: Width, depth and heads of a vision transformer; a Swin transformer's are the file's.
        clip: Frames and side of a clip.
        num_classes: Classes of its head.

    Returns:
        A module `(frames, boxes) -> logits`, `frames` normalised as for our models.

    Raises:
        CheckpointError: Unreadable, another layout, or another size or number of classes.
    """
    match system:
        case "st_mae":
            return load_st_mae(path, size, clip, num_classes)
        case "omnimae":
            return load_omnimae(path, size, clip, num_classes)
        case "omnivore":
            return load_omnivore(path, clip, num_classes)
        case "bevt":
            return load_bevt(path, clip, num_classes)
