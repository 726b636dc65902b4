"""Number formats of the forward and backward pass."""

from __future__ import annotations

import torch
from torch import nn

from mofo_train.config import Precision
from mofo_train.models.vit import learn_in_float8

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
"""`run.precision` -> number format of what is not a product in 8 bits."""


def set_precision(model: nn.Module, precision: Precision) -> None:
    """Make a model learn as `run.precision` wants it, beside the autocast to the number format of `DTYPES`.

    Raises:
        ConfigError: The model or the device cannot learn so, see `learn_in_float8`.
    """
    if precision == "fp8":
        learn_in_float8(model)
