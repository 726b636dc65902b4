"""What can go wrong, in the words a user reads."""

from __future__ import annotations

from motionbox.errors import ConfigError, ExitCode, Interrupted, MotionBoxError

__all__ = ["CheckpointError", "ConfigError", "DataError", "ExitCode", "Interrupted", "MofoTrainError"]


class MofoTrainError(MotionBoxError):
    """An error that the user can act on: says what, where and what to do, in one line."""


class DataError(MofoTrainError):
    """A store, a clip list or labels are missing or do not fit the recipe."""


class CheckpointError(MofoTrainError):
    """A checkpoint cannot be read or belongs to another model."""
