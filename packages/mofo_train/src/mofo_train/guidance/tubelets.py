"""The geometry of a clip: how frames are cut into tubelets, which models embed as tokens and masks hide."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ClipShape:
    """The clip that a model reads, cut into tubelets.

    Attributes:
        num_frames: Frames of a clip, a multiple of `tubelet_frames`.
        image_px: Height and width of a frame, a multiple of `patch_px`.
        patch_px: Side of a tubelet.
        tubelet_frames: Frames of a tubelet.
    """

    num_frames: int = 16
    image_px: int = 224
    patch_px: int = 16
    tubelet_frames: int = 2

    def __post_init__(self) -> None:
        for name, whole, part in (
            ("num_frames", self.num_frames, self.tubelet_frames),
            ("image_px", self.image_px, self.patch_px),
        ):
            if part < 1 or whole < part or whole % part:
                raise ValueError(f"{name} must be a positive multiple of {part}, got {whole!r}")

    @property
    def num_tubelets(self) -> int:
        """Tubelets in time."""
        return self.num_frames // self.tubelet_frames

    @property
    def num_patches(self) -> int:
        """Patches of a frame."""
        return (self.image_px // self.patch_px) ** 2

    @property
    def num_tokens(self) -> int:
        """Tokens of a clip."""
        return self.num_tubelets * self.num_patches

    @property
    def tubelet_values(self) -> int:
        """Colour values of one tubelet."""
        return 3 * self.tubelet_frames * self.patch_px**2

    def check(self, frames: Tensor) -> None:
        """Raise ValueError unless `frames` is (B, 3, num_frames, image_px, image_px)."""
        expected = (3, self.num_frames, self.image_px, self.image_px)
        if frames.ndim != 5 or tuple(frames.shape[1:]) != expected:
            raise ValueError(f"frames must have shape (B, {', '.join(map(str, expected))}), got {tuple(frames.shape)}")


def patchify(frames: Tensor, clip: ClipShape) -> Tensor:
    """Cut clips into tubelets.

    Args:
        frames: (B, 3, T, H, W) of any type.
        clip: The shape of a clip.

    Returns:
        (B, num_tokens, tubelet_frames * patch_px^2 * 3): tokens by time, row, column; values by time, row, column,
        channel, the order of VideoMAE's targets.
    """
    clip.check(frames)
    side, patch, depth = clip.image_px // clip.patch_px, clip.patch_px, clip.tubelet_frames
    cut = frames.reshape(-1, 3, clip.num_tubelets, depth, side, patch, side, patch)
    return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(-1, clip.num_tokens, clip.tubelet_values)


def unpatchify(tubelets: Tensor, clip: ClipShape) -> Tensor:
    """Put tubelets together again; the inverse of `patchify`, (B, num_tokens, values) -> (B, 3, T, H, W)."""
    side, patch, depth = clip.image_px // clip.patch_px, clip.patch_px, clip.tubelet_frames
    cut = tubelets.reshape(-1, clip.num_tubelets, side, side, depth, patch, patch, 3)
    frames = cut.permute(0, 7, 1, 4, 2, 5, 3, 6)
    return frames.reshape(-1, 3, clip.num_frames, clip.image_px, clip.image_px)
