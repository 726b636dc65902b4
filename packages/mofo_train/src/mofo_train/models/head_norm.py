"""What stands between the pooled tokens of a clip and the linear head."""

from __future__ import annotations

from torch import nn

from mofo_train.finetune_config import HeadNorm
from mofo_train.models.vit import NORM_EPSILON

_MOMENTUM = 0.05  # of the running mean and variance: those of the last twenty batches or so


def create_head_norm(kind: HeadNorm, dim: int) -> nn.Module:
    """Create the norm of (B, dim) pooled tokens.

    Args:
        kind: `layer`: every vector by its own mean and variance, with learned scale and shift (VideoMAE). `batch`:
            every value by its mean and variance over clips, without parameters (He et al. 2022, appendix A, linear
            probing).
        dim: Width of the tokens.
    """
    if kind == "batch":
        return nn.BatchNorm1d(dim, eps=NORM_EPSILON, momentum=_MOMENTUM, affine=False)
    return nn.LayerNorm(dim, eps=NORM_EPSILON)
