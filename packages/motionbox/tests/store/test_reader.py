import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from motionbox.config import load_config
from motionbox.errors import StoreError
from motionbox.extraction.snapshot import make_snapshot
from motionbox.inputs.schema import build_table
from motionbox.motion.areas import clip_areas
from motionbox.motion.boxes import BoxSource
from motionbox.store import Store, open_store
from motionbox.store.areas.blocks import stored_areas
from motionbox.store.care.verify import verify_store
from motionbox.store.units import units_of
from motionbox.store.writing.runs import Run
from store_support import DifferenceFlow, NumberSource, commit_units, make_run, number_videos, small_config, unit_tables

VIDEOS = {"a": "60@25", "b": "1@25", "c": "40@20!15", "d": "error not_a_video", "e": "250@25"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("videos")
    manifest = number_videos(root, VIDEOS)
    manifest = manifest.append_column("verb", pa.array(["push", "lift", "open", "shake", "push"]))
    run = make_run(tmp_path_factory.mktemp("store"), root, manifest, max_frames=100)
    commit_units(run)
    make_snapshot(run)
    return run


@pytest.fixture(scope="module")
def store(run: Run) -> Store:
    return open_store(run.paths.root.parent.parent)


def test_clips_has_the_contracted_columns(store: Store) -> None:
    table = store.clips()
    assert table.column_names[:15] == [
        *("clip_id", "video_id", "start_seconds", "stop_seconds", "num_frames", "width", "height", "fps"),
        *("status", "reason", "x1", "y1", "x2", "y2", "path"),
    ]
    assert table.column("verb").to_pylist() == ["push", "lift", "open", "shake", "push"]
    assert table.column("clip_id").to_pylist() == list(VIDEOS)
    assert table.column("num_frames").to_pylist() == [60, 1, 15, 0, 250]
    assert table.column("width").to_pylist() == [96, 96, 96, None, 96]


def test_statuses_and_reasons(store: Store) -> None:
    rows = {row["clip_id"]: (row["status"], row["reason"].split(":")[0]) for row in store.clips().to_pylist()}
    assert rows == {
        "a": ("ok", ""),
        "b": ("no_motion", "one_frame"),
        "c": ("partial", "truncated"),
        "d": ("failed", "not_a_video"),
        "e": ("ok", ""),
    }
    assert store.frame_boxes("d").shape == (0, 4)
    assert store.motion_maps("d").shape[0] == 0
    np.testing.assert_array_equal(store.frame_boxes("b"), [[24, 24, 72, 72]])
    assert store.frame_sources("b").tolist() == [BoxSource.CENTRE]


def test_frames_have_boxes_times_and_maps(store: Store) -> None:
    for row in store.clips().to_pylist():
        boxes, times = store.frame_boxes(row["clip_id"]), store.frame_times(row["clip_id"])
        maps = store.motion_maps(row["clip_id"])
        assert boxes.dtype == np.int32
        assert times.dtype == np.float64
        assert maps.dtype == np.uint8
        assert len(boxes) == len(times) == len(maps) == row["num_frames"]
        assert np.all(np.diff(times) > 0)
        if len(boxes):
            assert [row["x1"], row["y1"]] == boxes[:, :2].min(axis=0).tolist()
            assert [row["x2"], row["y2"]] == boxes[:, 2:].max(axis=0).tolist()
    np.testing.assert_allclose(store.frame_times("e"), np.arange(250) / 25)


def test_maps_of_a_clip_over_several_units_are_those_of_its_frames(store: Store, run: Run) -> None:
    unit = units_of(make_plan_of_one(run, "e"))[0]
    whole = unit_tables(unit, run.config, run.data_root, NumberSource(), DifferenceFlow())
    maps = store.motion_maps("e")
    assert maps.shape == (250, 12, 12)
    # 249 flows; blocks store the flow that they share with the next block once each
    index = whole.frames.column("map_index").to_numpy()
    np.testing.assert_array_equal(maps, whole.maps[index])


def make_plan_of_one(run: Run, video: str) -> pa.Table:
    plan = run.plan().to_pylist()[:1]
    plan[0].update(video_id=video, path=f"{video}.num", first_block=None, stop_block=None)
    return pa.Table.from_pylist(plan, schema=run.plan().schema)


def test_frame_rows_are_there_for_other_programs(store: Store, run: Run) -> None:
    table = pq.read_table(run.paths.snapshots / "1" / "frames-00000.parquet")
    rows = [row for row in table.to_pylist() if row["clip_id"] == "e"]
    np.testing.assert_array_equal(
        [[row[name] for name in ("x1", "y1", "x2", "y2")] for row in rows], store.frame_boxes("e")
    )


def test_overlapping_clips_of_one_video_are_ranges_of_its_frames(tmp_path: Path) -> None:
    number_videos(tmp_path / "videos", {"v": "500@25"})
    manifest = build_table(
        {
            "clip_id": ["late", "early", "over", "outside", "all"],
            "video_id": ["v"] * 5,
            "path": ["v.num"] * 5,
            "start_seconds": [10.0, 1.0, 5.0, 100.0, None],
            "stop_seconds": [15.0, 8.5, 12.0, 101.0, None],
        }
    )
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest, max_frames=200)
    commit_units(run)
    make_snapshot(run)
    store = open_store(tmp_path / "store")
    assert store.clips().column("clip_id").to_pylist() == ["late", "early", "over", "outside", "all"]
    assert store.clips().column("num_frames").to_pylist() == [125, 188, 175, 0, 500]
    assert store.clips().column("status").to_pylist() == ["ok", "ok", "ok", "failed", "ok"]
    times = store.frame_times("early")
    assert (times[0], times[-1]) == (1.0, 8.48)
    # the same frame has the same map in every clip that shows it
    np.testing.assert_array_equal(store.motion_maps("over")[:88], store.motion_maps("early")[100:])
    attempts = list(run.paths.attempts.glob("*/*/frames.parquet"))
    assert sum(pq.read_metadata(path).num_rows for path in attempts) == 500


def test_content_digest_does_not_depend_on_units_or_order_of_work(tmp_path: Path) -> None:
    manifest = number_videos(tmp_path / "videos", VIDEOS)
    digests, areas = [], []
    for number, max_frames in enumerate((50, 100, 300, 4096)):
        run = make_run(tmp_path / f"store{number}", tmp_path / "videos", manifest, max_frames=max_frames)
        commit_units(run)
        make_snapshot(run)
        info = open_store(tmp_path / f"store{number}").info
        digests.append(info["content_digest"])
        areas.append(info["areas"]["digest"])
    assert (len(set(digests)), len(set(areas))) == (1, 1)
    run = make_run(tmp_path / "other", tmp_path / "videos", manifest, config=small_config(**{"boxes.pad_share": 0.5}))
    commit_units(run)
    make_snapshot(run)
    assert open_store(tmp_path / "other").info["content_digest"] != digests[0]


def test_only_committed_units_are_seen(tmp_path: Path) -> None:
    manifest = number_videos(tmp_path / "videos", VIDEOS)
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest, max_frames=100)
    with pytest.raises(StoreError, match="no snapshot yet"):
        open_store(tmp_path / "store")
    units = units_of(run.plan())
    assert len(units) > 3
    commit_units(run, skip=(units[-1].unit_id,))
    assert make_snapshot(run) == 1
    first = open_store(tmp_path / "store")
    assert first.clips().column("clip_id").to_pylist() == ["a", "b", "c", "d"]
    assert (first.info["num_clips"], first.info["num_clips_planned"]) == (4, 5)
    commit_units(run)
    assert make_snapshot(run) == 2
    assert make_snapshot(run) == 2  # nothing new
    assert len(open_store(tmp_path / "store")) == 5
    assert len(open_store(tmp_path / "store", snapshot=1)) == 4
    assert first.frame_boxes("a").shape == (60, 4)
    with pytest.raises(StoreError, match="'e'"):
        first.frame_boxes("e")


def test_a_store_travels_to_other_processes(store: Store) -> None:
    copy = pickle.loads(pickle.dumps(store))  # noqa: S301
    np.testing.assert_array_equal(copy.frame_boxes("a"), store.frame_boxes("a"))
    assert (copy.run_id, copy.snapshot) == (store.run_id, store.snapshot)


def test_returned_arrays_are_the_callers(store: Store) -> None:
    boxes = store.frame_boxes("a")
    boxes[:] = 0
    assert store.frame_boxes("a").any()


def test_areas_are_those_of_the_clips_maps(store: Store) -> None:
    config = store.config()
    for row in store.clips().to_pylist():
        clip_id, count = row["clip_id"], row["num_frames"]
        areas, maps = store.motion_areas(clip_id), store.motion_maps(clip_id)
        assert areas.dtype == np.uint8
        assert areas.shape == maps.shape == ((count, 12, 12) if count else (0, 0, 0))
        if count:
            found = clip_areas(maps, store.frame_times(clip_id), row["width"], row["height"], config)
            np.testing.assert_array_equal(areas, stored_areas(found.areas))
    assert store.motion_areas("e").any()
    assert store.frame_cells_wh("a") == (12.0, 12.0)
    assert store.frame_cells_wh("d") == (0.0, 0.0)


def test_some_frames_of_a_clips_areas(store: Store) -> None:
    whole = store.motion_areas("e")
    np.testing.assert_array_equal(store.motion_areas("e", [207, 3, 3, 249]), whole[[207, 3, 3, 249]])
    assert store.motion_areas("e", []).shape == (0, 12, 12)
    with pytest.raises(ValueError, match="0 to 249"):
        store.motion_areas("e", [250])
    with pytest.raises(StoreError, match="source must be one of motion, got 'annotated'"):
        store.motion_areas("e", source="annotated")


def test_boxes_of_preset_tuned_are_around_its_areas(tmp_path: Path) -> None:
    manifest = number_videos(tmp_path / "videos", {"a": "60@25", "b": "600@25"})
    own = {"frames.duplicate_ratio": 0.0, "frames.short_side_px": 48, "store.map_scale": 4}
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest, config=load_config("tuned", overrides=own))
    commit_units(run)
    make_snapshot(run)
    with open_store(tmp_path / "store") as store:
        for row in store.clips().to_pylist():
            maps, times = store.motion_maps(row["clip_id"]), store.frame_times(row["clip_id"])
            found = clip_areas(maps, times, 96, 96, store.config())
            np.testing.assert_array_equal(store.frame_boxes(row["clip_id"]), found.boxes)
            np.testing.assert_array_equal(store.motion_areas(row["clip_id"]), stored_areas(found.areas))
            assert found.areas.any()


def test_a_snapshot_of_before_there_were_areas(tmp_path: Path) -> None:
    """Its areas are computed on reading; the next extraction makes a snapshot that holds them."""
    manifest = number_videos(tmp_path / "videos", {"a": "60@25", "still": "30@25"})
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest)
    commit_units(run)
    make_snapshot(run)
    with open_store(tmp_path / "store") as store:
        expected = [store.motion_areas(clip_id) for clip_id in ("a", "still")]
    assert make_snapshot(run) == 1
    without_areas(run.paths.snapshot(1))
    with open_store(tmp_path / "store") as store:
        for clip_id, areas in zip(("a", "still"), expected, strict=True):
            np.testing.assert_array_equal(store.motion_areas(clip_id), areas)
    assert make_snapshot(run) == 2
    with open_store(tmp_path / "store") as store:
        np.testing.assert_array_equal(store.motion_areas("a"), expected[0])
        assert "areas.bin" in store.info["files"]


def without_areas(snapshot: Path) -> None:
    """Make a snapshot what it was before there were areas."""
    info = json.loads((snapshot / "MANIFEST.json").read_text())
    clips = pq.read_table(snapshot / "clips.parquet").drop_columns(["first_area_block", "num_area_blocks"])
    pq.write_table(clips, snapshot / "clips.parquet")
    for name in ("areas.bin", "area_blocks.npy"):
        (snapshot / name).unlink()
        del info["files"][name]
    del info["areas"]
    (snapshot / "MANIFEST.json").write_text(json.dumps(info))


@pytest.mark.parametrize("preset", ["tuned", "paper"])
def test_a_clip_that_stands_still_has_no_area(tmp_path: Path, preset: str) -> None:
    manifest = number_videos(tmp_path / "videos", {"a": "60@25"})
    config = load_config(preset, overrides={"frames.short_side_px": 48, "store.static_energy": 1e6})
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest, config=config)
    commit_units(run)
    make_snapshot(run)
    for _ in range(2):
        with open_store(tmp_path / "store") as store:
            assert store.motion_maps("a").any()
            areas = store.motion_areas("a")
            assert areas.shape == (60, 6, 6)
            assert not areas.any()
            assert store.clips().column("status").to_pylist() == ["no_motion"]
        if "areas" in store.info:
            without_areas(run.paths.snapshot(1))


def test_a_damaged_block_of_areas_is_one_line(tmp_path: Path) -> None:
    manifest = number_videos(tmp_path / "videos", {"a": "60@25"})
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest)
    commit_units(run)
    make_snapshot(run)
    path = run.paths.snapshot(1) / "areas.bin"
    path.write_bytes(path.read_bytes()[:-9])
    with open_store(tmp_path / "store") as store, pytest.raises(StoreError, match=r"areas.bin is damaged: .*verify"):
        store.motion_areas("a")
    problems = [check for check in verify_store(tmp_path / "store") if check.problem]
    assert [check.name for check in problems] == ["snapshot 1"]
    assert "areas.bin" in str(problems[0].problem)


def test_no_maps_kept(tmp_path: Path) -> None:
    manifest = number_videos(tmp_path / "videos", {"a": "10@25"})
    config = small_config(**{"store.motion_maps": False})
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest, config=config)
    commit_units(run)
    make_snapshot(run)
    with pytest.raises(StoreError, match="keeps no motion maps"):
        open_store(tmp_path / "store").motion_maps("a")
    with pytest.raises(StoreError, match="keeps no motion maps"):
        open_store(tmp_path / "store").motion_areas("a")
    assert not list(run.paths.attempts.rglob("motion.zarr"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a motionbox store"),
        ({"format": "zarr", "version": 1}, "another program"),
        ({"format": "motionbox-store", "version": 99}, "version 99"),
        ([1], "JSON object"),
    ],
)
def test_other_stores_are_refused(tmp_path: Path, content: object, message: str) -> None:
    if content is not None:
        (tmp_path / "store.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match=message):
        open_store(tmp_path)
    with pytest.raises(StoreError, match="does not exist"):
        open_store(tmp_path / "nowhere")


def test_choosing_a_run(store: Store) -> None:
    assert open_store(store.path, run=store.run_id[:6]).run_id == store.run_id
    with pytest.raises(StoreError, match=store.run_id):
        open_store(store.path, run="zzz")


def test_areas_to_be_computed_where_opencv_is_missing_are_one_line(tmp_path: Path) -> None:
    manifest = number_videos(tmp_path / "videos", {"a": "20@25"})
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest)
    commit_units(run)
    make_snapshot(run)
    without_areas(run.paths.snapshot(1))
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "import motionbox.errors, motionbox.store\n"
        f"s = motionbox.store.open_store({str(tmp_path / 'store')!r}); s.frame_boxes('a'); s.motion_maps('a')\n"
        "try: s.motion_areas('a')\n"
        "except motionbox.errors.StoreError as error: print(error)\n"
    )
    path = ":".join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path})
    assert "must hold motion areas where cv2 is not installed" in done.stdout, done.stderr


def test_importing_the_reader_loads_numpy_and_pyarrow_alone() -> None:
    code = (
        "import sys, motionbox.store\n"
        "print([m for m in ('pydantic', 'pyarrow.compute', 'zarr', 'av', 'click') if m in sys.modules])\n"
    )
    path = ":".join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path})
    assert done.stdout.strip() == "[]", done.stderr


def test_reading_loads_nothing_heavy(store: Store) -> None:
    code = (
        "import sys, motionbox.store, motionbox.inputs.manifest, motionbox.motion.boxes\n"
        f"s = motionbox.store.open_store({str(store.path)!r}); s.frame_boxes('a'); s.motion_areas('a'); s.clips()\n"
        "print([m for m in ('ray', 'cv2', 'numba', 'av', 'zarr', 'torch', 'scipy', 'rich') if m in sys.modules])\n"
    )
    path = ":".join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path})
    assert done.stdout.strip() == "[]", done.stderr
