"""Motion-focused self-supervised video learning on top of a `motionbox` store.

The package reads in the order of the data, a folder for each step: `data` -> `guidance` -> `models` -> `runtime` ->
`evaluation` -> `training` -> `table`. These names are what most users need; each is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mofo_train.data.motion_clips import MotionClips
    from mofo_train.models import MotionPooling, create_classifier, create_pretrain_model, load_checkpoint

__all__ = ["MotionClips", "MotionPooling", "create_classifier", "create_pretrain_model", "load_checkpoint"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name == "MotionClips":
        from mofo_train.data import motion_clips as module
    elif name in __all__:
        from mofo_train import models as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
