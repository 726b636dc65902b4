"""The store: what `motionbox extract` writes and `mofo-train` reads. See docs/store.md.

In the order of the data: `layout` says where things are, `units` what extraction gives: rows, block by block, with
flows and colour frames coded by `flow_form` and `clip_coder` (as `clip_blocks`). `writing` makes runs, takes a unit's
rows as an attempt and commits it; `reading` is what programs open (motion `areas` have a room of their own). `care`
verifies a store and collects its garbage, `export` leaves it.
"""

from motionbox.store.reading.store import Store, open_store

__all__ = ["Store", "open_store"]
