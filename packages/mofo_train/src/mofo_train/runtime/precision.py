"""Number formats of the forward and backward pass."""

from __future__ import annotations

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
"""`run.precision` -> number format of what is not a product in 8 bits."""
