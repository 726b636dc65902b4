"""Decoded clips that stay in memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class ClipCache:
    """Keeps the first clips that are asked for, all their frames, until its memory is full.

    Nothing is thrown out: an epoch asks for every clip once, so a clip that comes would push out one that is as useful.
    """

    def __init__(self, gib: float) -> None:
        """Create an empty cache of so many GiB; 0 = none."""
        self._clips: dict[str, Pixels] = {}
        self._room_bytes = int(gib * 2**30)

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._clips

    @property
    def is_full(self) -> bool:
        """Whether it keeps no clip more, so that only the frames asked for are decoded."""
        return self._room_bytes <= 0

    def read(
        self,
        clip_id: str,
        frames: NDArray[np.int64],
        num_frames: int,
        decode: Callable[[NDArray[np.int64], Pixels | None], Pixels],
        out: Pixels | None = None,
    ) -> Pixels:
        """Return frames of a clip, decoded now or before.

        Args:
            clip_id: The clip.
            frames: (T,) positions among its frames.
            num_frames: All frames of the clip.
            decode: Positions, and where to write or None -> uint8 (T, ...); called for all frames while there is
                room, then for those asked for.
            out: Where to write them, uint8 (T, ...); None: new memory.
        """
        whole = self._clips.get(clip_id)
        if whole is None and not self.is_full:
            whole = decode(np.arange(num_frames), None)
            self._room_bytes -= whole.nbytes
            if self._room_bytes >= 0:
                self._clips[clip_id] = whole
        return decode(frames, out) if whole is None else whole.take(frames, axis=0, out=out)
