"""Number formats of the forward and backward pass."""

from __future__ import annotations

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""`run.precision` -> number format."""
