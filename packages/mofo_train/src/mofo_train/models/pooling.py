"""From the tokens of a clip to one vector, guided by which of them are inside the motion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mofo_train.models.mca import MultiCrossAttention

_OUTSIDE_WEIGHT = 0.5

Pool = Callable[[Mapping[str, nn.Module], Tensor, Tensor], Tensor]
"""(parts by name, tokens (B, N, dim), inside bool (B, N)) -> (B, dim)."""


@dataclass(frozen=True)
class FusionKind:
    """What a value of `model.fusion` means.

    Attributes:
        pool: Makes one vector of a clip's tokens; `MotionPooling` takes care of clips without inside tokens.
        parts: Name -> makes a module of the tokens' width that `pool` uses; the names are those of checkpoints.
        reads_inside: False where it does not matter which tokens are inside.
    """

    pool: Pool
    parts: Mapping[str, Callable[[int], nn.Module]] = field(default_factory=dict)
    reads_inside: bool = True


class MotionPooling(nn.Module):
    """Fuse the tokens of a clip into one vector by which of them are inside the motion, for any backbone.

    A clip without inside tokens gets the plain mean of its tokens. In a clip without outside tokens the inside ones
    attend to one another (`mca`), or are averaged (`weighted_mean`).

    Attributes:
        kind: Its name in `FUSIONS`.
    """

    def __init__(self, dim: int, kind: str = "mca") -> None:
        """Create the pooling and its parts, with PyTorch's initial weights.

        Args:
            dim: Width of the tokens.
            kind: `mean` (all tokens), `weighted_mean` ((inside + outside / 2) / 2), `mca` (MOFO section 2.3: inside
                tokens attend to outside ones) or `mca_two_way` (the other direction too, both means summed).

        Raises:
            ValueError: Unknown kind, or tokens too narrow for multi-cross attention's three heads.
        """
        super().__init__()
        if kind not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, got {kind!r}")
        self.kind = kind
        for name, create in FUSIONS[kind].parts.items():
            self.add_module(name, create(dim))

    @property
    def reads_inside(self) -> bool:
        """Whether it matters which tokens are inside."""
        return FUSIONS[self.kind].reads_inside

    def forward(self, tokens: Tensor, inside: Tensor | None = None) -> Tensor:
        """Fuse tokens.

        Args:
            tokens: (B, N, dim), any float type.
            inside: bool (B, N), which tokens are inside the motion; `mofo_train.guidance.inside` makes it of boxes.
                May be left out where `reads_inside` is False.

        Returns:
            (B, dim) of the tokens' type.

        Raises:
            ValueError: `inside` is missing, of another shape or not bool.
        """
        if not self.reads_inside:
            inside = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        if inside is None:
            raise ValueError(f"inside must be given for fusion {self.kind!r}, got None")
        if inside.dtype != torch.bool or inside.shape != tokens.shape[:2]:
            rule = f"bool {tuple(tokens.shape[:2])}"
            raise ValueError(f"inside must be {rule}, got {inside.dtype} {tuple(inside.shape)}")
        fusion = FUSIONS[self.kind]
        pooled = fusion.pool({name: self.get_submodule(name) for name in fusion.parts}, tokens, inside)
        if not self.reads_inside:
            return pooled
        return pooled.where(inside.any(1, keepdim=True), tokens.mean(1)).to(tokens.dtype)


def _mean(_: Mapping[str, nn.Module], tokens: Tensor, inside: Tensor) -> Tensor:  # noqa: ARG001
    return tokens.mean(1)


def _weighted_mean(_: Mapping[str, nn.Module], tokens: Tensor, inside: Tensor) -> Tensor:
    """Average (B, N, dim) by membership (B, N): (inside + outside / 2) / 2, or inside where nothing is outside."""
    member = torch.stack([inside, ~inside], 1)
    counts = member.sum(2, keepdim=True)
    with torch.autocast(tokens.device.type, enabled=False):
        inner, outer = (torch.bmm(member.to(tokens.dtype), tokens) / counts.clamp(min=1)).unbind(1)
    return ((inner + _OUTSIDE_WEIGHT * outer) / 2).where(counts[:, 1] > 0, inner)


def _cross_attention(parts: Mapping[str, nn.Module], tokens: Tensor, inside: Tensor) -> Tensor:
    """Let inside tokens attend to outside ones, and the other way round where there is a part for it."""
    pooled: Tensor = parts["inside_mca"](tokens, inside, ~inside)
    if "outside_mca" in parts:
        pooled = pooled + parts["outside_mca"](tokens, ~inside, inside)
    return pooled


FUSIONS: dict[str, FusionKind] = {
    "mean": FusionKind(_mean, reads_inside=False),
    "weighted_mean": FusionKind(_weighted_mean),
    "mca": FusionKind(_cross_attention, {"inside_mca": MultiCrossAttention}),
    "mca_two_way": FusionKind(
        _cross_attention, {"inside_mca": MultiCrossAttention, "outside_mca": MultiCrossAttention}
    ),
}
"""`model.fusion` -> what it means."""
