"""Sets of rows that differ in size from clip to clip, packed one clip after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


@dataclass(frozen=True)
class Ragged:
    """How many rows each clip has of a packed (num_rows, width) tensor.

    Attributes:
        counts: int64 (g,) rows of each clip, on the rows' device.
        sizes: The same numbers, on the host.
    """

    counts: Tensor
    sizes: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        """Rows of all clips."""
        return sum(self.sizes)

    @property
    def longest(self) -> int:
        """Rows of the clip that has most."""
        return max(self.sizes)

    def edges(self) -> Tensor:
        """Return int32 (g + 1,), where each clip's rows begin, and the number of rows."""
        return F.pad(self.counts.cumsum(0, dtype=torch.int32), (1, 0))

    def split(self, num_parts: int) -> list[Ragged]:
        """Cut into parts of neighbouring clips."""
        counts = self.counts.tensor_split(num_parts)
        indices = torch.arange(len(self.sizes)).tensor_split(num_parts)
        return [
            Ragged(part, tuple(self.sizes[clip] for clip in clips.tolist()))
            for part, clips in zip(counts, indices, strict=True)
        ]

    def pad(self, packed: Tensor) -> tuple[Tensor, Tensor | None]:
        """Lay packed (n, width) rows out as (g, longest, width), and say which are valid; None when all are.

        Clips of equal size are a view. `index_select`, here and below, because the backward pass of plain indexing is
        several times slower on a CPU.
        """
        shape = (len(self.sizes), self.longest, packed.shape[1])
        if min(self.sizes) == self.longest:
            return packed.reshape(shape), None
        step = torch.arange(self.longest, device=packed.device)
        is_valid = step < self.counts[:, None]
        # Padding repeats row 0: any row will do, since nobody reads it.
        index = ((self.counts.cumsum(0) - self.counts)[:, None] + step).where(is_valid, torch.zeros_like(step))
        return packed.index_select(0, index.flatten()).reshape(shape), is_valid

    def unpad(self, padded: Tensor) -> Tensor:
        """Undo `pad`: (g, longest, width) -> (n, width)."""
        flat = padded.flatten(0, 1)
        if min(self.sizes) == self.longest:
            return flat
        # Row r of clip c lies at c * longest + r when padded, at (rows of the clips before c) + r when packed.
        shift = torch.arange(len(self.sizes), device=flat.device) * self.longest - (self.counts.cumsum(0) - self.counts)
        shift = shift.repeat_interleave(self.counts, output_size=self.num_rows)
        return flat.index_select(0, torch.arange(self.num_rows, device=flat.device) + shift)
