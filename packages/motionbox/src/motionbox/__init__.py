"""Finds where the motion is in every video of a data set.

The package reads like its pipeline, a folder for each step: `inputs` -> `video` -> `flow` -> `motion` -> `store`, with
`extraction` to run it on a data set. These names are what most users need; each is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from motionbox.extraction.in_memory import clip_boxes, motion_areas
    from motionbox.flow import compute_flow
    from motionbox.inputs.manifest import load_manifest
    from motionbox.motion.contours import frame_box
    from motionbox.motion.maps import motion_map
    from motionbox.store import open_store

__all__ = ["clip_boxes", "compute_flow", "frame_box", "load_manifest", "motion_areas", "motion_map", "open_store"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name in ("clip_boxes", "motion_areas"):
        from motionbox.extraction import in_memory as module
    elif name == "compute_flow":
        from motionbox import flow as module  # type: ignore[no-redef]
    elif name == "load_manifest":
        from motionbox.inputs import manifest as module  # type: ignore[no-redef]
    elif name == "frame_box":
        from motionbox.motion import contours as module  # type: ignore[no-redef]
    elif name == "motion_map":
        from motionbox.motion import maps as module  # type: ignore[no-redef]
    elif name == "open_store":
        from motionbox import store as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
