"""Things with known outlines over real footage: exact truth about what moves, in pictures that look like the user's."""

from motionbox.synthetic.over_footage.writer import FootageConfig, FootageSet, write_footage_set

__all__ = ["FootageConfig", "FootageSet", "write_footage_set"]
