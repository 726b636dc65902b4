"""The store: what `motionbox extract` writes and `mofo-train` reads. See docs/store.md.

In the order of the data: `layout` says where things are; `runs` creates a run; a worker's attempt is written by
`clip_coder` (colour frames, as `clip_blocks`) and `flow_writer` and becomes visible through `commit`; `failures`
counts what went wrong; `snapshot` puts the committed units together; `reader` is what programs open (motion `areas`
have a room of their own). `verify` and `garbage` look after a store, `export` leaves it.
"""

from motionbox.store.reader import Store, open_store

__all__ = ["Store", "open_store"]
