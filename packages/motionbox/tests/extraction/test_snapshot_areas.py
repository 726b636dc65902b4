"""Snapshots of the preset `tuned`: boxes made from the stored motion maps, clip by clip."""

import numpy as np

from motionbox.extraction.snapshot import make_snapshot
from motionbox.motion.clip_boxes import clip_boxes
from motionbox.store import Store, open_store
from store_support import commit_units, make_run, number_videos, small_config

VIDEOS = {"a": "60@25", "b": "1@25", "d": "error not_a_video", "e": "250@25"}


def make_store(tmp_path, max_frames: int) -> Store:
    config = small_config(**{"boxes.stabilise": "areas", "boxes.pad_share": 0.0})
    manifest = number_videos(tmp_path / "videos", VIDEOS)
    root = tmp_path / f"store{max_frames}"
    run = make_run(root, tmp_path / "videos", manifest, max_frames=max_frames, config=config)
    commit_units(run)
    make_snapshot(run)
    return open_store(root)


def test_boxes_are_those_of_the_clips_maps(tmp_path):
    store = make_store(tmp_path, 100)
    rows = {row["clip_id"]: row for row in store.clips().to_pylist()}
    for clip_id in ("a", "e"):
        row = rows[clip_id]
        maps, times = store.motion_maps(clip_id), store.frame_times(clip_id)
        raw = np.full((len(times), 4), -1)
        expected = clip_boxes(raw, maps, times, row["width"], row["height"], store.config())
        np.testing.assert_array_equal(store.frame_boxes(clip_id), expected.boxes)
        np.testing.assert_array_equal(store.frame_confidences(clip_id), expected.confidence)
        np.testing.assert_allclose(row["confidence"], expected.clip_confidence, rtol=1e-6)
    assert (rows["b"]["confidence"], rows["d"]["confidence"]) == (0, None)
    assert store.frame_confidences("d").shape == (0,)


def test_boxes_do_not_depend_on_the_split_of_the_work(tmp_path):
    digests = {make_store(tmp_path, max_frames).info["content_digest"] for max_frames in (50, 300)}
    assert len(digests) == 1
