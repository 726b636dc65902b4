"""The `folder` data set: any folder of videos, frame folders and tars, with or without a list of its clips.

In the order of the data: `scan` (what is there), `listed` (what lists call it), `clip_ids` (names that stand for one
thing), `annotations` (the list, `annotations.csv`), `load` (both as a manifest).
"""
