"""Memory that a worker frees stays with it, ready for the next frame."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 256 << 20
_LARGEST_FROM_HEAP_BYTES = 32 << 20  # glibc takes no more


def keep_freed_memory() -> bool:
    """Tell the C library to keep up to 256 MiB of freed memory, for arrays of up to 32 MiB.

    By default it hands the arrays of a frame back to the system and gets them again for the next frame, as pages that
    must be filled with zeros first: that took a third of the time of all steps after flow.

    Returns:
        Whether it was told: C libraries other than glibc have no such setting.
    """
    try:
        tune = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(tune(_MMAP_THRESHOLD, _LARGEST_FROM_HEAP_BYTES)) and bool(tune(_TRIM_THRESHOLD, _KEPT_BYTES))
