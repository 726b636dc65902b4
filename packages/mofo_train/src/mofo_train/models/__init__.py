"""Models: VideoMAE's autoencoder for pretraining, and the classifier with motion-box fusion."""

from __future__ import annotations

from dataclasses import replace

from mofo_train.finetune_config import HeadNorm
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models.classifier import Classifier
from mofo_train.models.mae import MaskedAutoencoder
from mofo_train.models.pooling import FUSIONS, FusionKind, MotionPooling
from mofo_train.models.vit import SIZES, size_of
from mofo_train.models.weights import load_checkpoint, load_into

__all__ = [
    "FUSIONS",
    "SIZES",
    "Classifier",
    "ClipShape",
    "FusionKind",
    "MaskedAutoencoder",
    "MotionPooling",
    "create_classifier",
    "create_pretrain_model",
    "load_checkpoint",
    "load_into",
]


def create_pretrain_model(
    name: str,
    *,
    num_frames: int = 16,
    image_px: int = 224,
    decoder_depth: int | None = None,
    drop_path: float = 0.0,
    grad_checkpointing: bool = False,
) -> MaskedAutoencoder:
    """Create a masked autoencoder with VideoMAE's initial weights.

    Args:
        name: One of `SIZES`: `videomae_mini`, `_tiny`, `_small`, `_base`, `_large`, `_huge`.
        num_frames: Frames of a clip, an even number.
        image_px: Side of a frame in pixels, a multiple of 16.
        decoder_depth: Blocks of the decoder; None = the published number.
        drop_path: Stochastic depth of the encoder's last block, rising from 0.
        grad_checkpointing: Activation checkpointing.

    Returns:
        A module `(frames (B, 3, T, H, W), mask (B, N)) -> (B, num_hidden, 1536)` in token order.

    Raises:
        ValueError: Unknown name, or a clip that tubelets do not tile.
    """
    size = size_of(name)
    if decoder_depth is not None:
        size = replace(size, decoder_depth=decoder_depth)
    model = MaskedAutoencoder(size, size.clip_shape(num_frames, image_px), drop_path=drop_path)
    model.enable_grad_checkpointing(grad_checkpointing)
    return model


def create_classifier(
    name: str,
    num_classes: int,
    fusion: str = "mean",
    *,
    num_frames: int = 16,
    image_px: int = 224,
    drop_path: float = 0.0,
    grad_checkpointing: bool = False,
    head_norm: HeadNorm = "layer",
) -> Classifier:
    """Create a classifier with the published initial weights.

    Args:
        name: One of `SIZES`.
        num_classes: Width of the head.
        fusion: One of `FUSIONS`: `mean` (VideoMAE: all tokens), `weighted_mean` ((inside + outside / 2) / 2), `mca`
            (MOFO: inside tokens attend to the outside ones), `mca_two_way` (the other direction too, both means
            summed).
        num_frames: Frames of a clip, an even number.
        image_px: Side of a frame in pixels, a multiple of 16.
        drop_path: Stochastic depth of the last block, rising from 0.
        grad_checkpointing: Activation checkpointing.
        head_norm: What stands before the head, `layer` (VideoMAE) or `batch`, see `head_norm.create_head_norm`.

    Returns:
        A module `(frames (B, 3, T, H, W), boxes (B, T, 4) xyxy pixels of those frames) -> (B, num_classes)` logits.

    Raises:
        ValueError: Unknown name or fusion, no classes, or a clip that tubelets do not tile.
    """
    size = size_of(name)
    clip = size.clip_shape(num_frames, image_px)
    model = Classifier(size, clip, num_classes, fusion, drop_path=drop_path, head_norm=head_norm)
    model.enable_grad_checkpointing(grad_checkpointing)
    return model
