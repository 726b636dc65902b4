"""BEVT's classifier (Wang et al. 2022), for weights that its code has finetuned.

Layout of the released code (xyzforever/BEVT, on mmaction2): `backbone.`, a Video Swin Transformer, and
`cls_head.fc_cls.`. The moving average that its recipe keeps beside the weights (`ema_...`) is not used: the authors'
own test program reads the weights by their plain names. Nobody can test the published figure, since the finetuned
weights themselves have not been released.
"""

from __future__ import annotations

from pathlib import Path

from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models.systems.video_swin import VideoSwin, create_from_weights
from mofo_train.models.weights import read_named_weights


def load_bevt(path: Path, clip: ClipShape, num_classes: int) -> VideoSwin:
    """Read weights in the layout of mmaction2; width, depths, heads and window are the file's.

    Args:
        path: The `.pth` file.
        clip: Frames and side of a clip.
        num_classes: Classes of its head.

    Raises:
        CheckpointError: Unreadable, another layout, or another number of classes.
    """
    # `read_named_weights` has taken the wrapper `backbone.` away.
    state = {name: value for name, value in read_named_weights(path).items() if not name.startswith("ema_")}
    return create_from_weights(path, state, clip, num_classes, trunk="", head="cls_head.fc_cls.")
