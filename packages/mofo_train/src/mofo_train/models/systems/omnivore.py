"""Omnivore's classifier (Girdhar et al. 2022), so that its published weights for EPIC-KITCHENS-100 can be tested.

Layout of the released code (facebookresearch/omnivore, `omnivore_model.py`): one group `trunk`, a Video Swin
Transformer, and one group `heads`, dropout and a linear layer. Its 3,806 actions are in ascending order of verb and
noun, as ours are. Weights for SSV2 have not been released; those for Kinetics, ImageNet and SUN RGB-D have three heads
of other data sets' classes and are refused.
"""

from __future__ import annotations

from pathlib import Path

from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models.systems.video_swin import VideoSwin, create_from_weights
from mofo_train.models.weights import read_named_weights


def load_omnivore(path: Path, clip: ClipShape, num_classes: int) -> VideoSwin:
    """Read weights in the released layout; width, depths, heads and window are the file's.

    Args:
        path: The `.torch` file.
        clip: Frames and side of a clip.
        num_classes: Classes of its head.

    Raises:
        CheckpointError: Unreadable, another layout, or another number of classes.
    """
    return create_from_weights(path, read_named_weights(path), clip, num_classes, trunk="trunk.", head="heads.1.")
