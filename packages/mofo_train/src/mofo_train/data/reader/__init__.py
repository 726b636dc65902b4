"""Clips of a store for training: frames with their boxes, and with motion areas and flow where these guide.

`chosen` says which clips there are to learn from, `clips` reads their frames (kept by `cache` where there is memory),
`guides` their boxes, areas and flow as a recipe wants them.
"""

from mofo_train.data.reader.cache import ClipCache
from mofo_train.data.reader.clips import ClipReader
from mofo_train.data.reader.guides import BoxUse, ClipUnreadableError

__all__ = ["BoxUse", "ClipCache", "ClipReader", "ClipUnreadableError"]
