"""Motion-focused self-supervised video learning on top of a `motionbox` store."""

__version__ = "0.1.0"
