"""Boxes and areas -> inside tokens -> masks, and what mixing clips does to them."""

from mofo_train.guidance.areas import inside_patches
from mofo_train.guidance.masks import motion_tube_mask

__all__ = ["inside_patches", "motion_tube_mask"]
