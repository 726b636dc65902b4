"""Guidances beside the motion of a store: annotated ones, and chance."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from motionbox.cli import main
from motionbox.errors import InputError, StoreError
from motionbox.extraction.snapshot import make_snapshot
from motionbox.motion.boxes import has_box
from motionbox.scoring.guidance.controls import moved_boxes, shrunk_area, shuffled
from motionbox.store import Store, open_store
from motionbox.store.areas.blocks import stored_areas
from motionbox.store.care.garbage import find_garbage, remove
from motionbox.store.care.verify import verify_store
from motionbox.store.layout import run_paths
from store_support import commit_units, make_run, number_videos

VIDEOS = {"a": "60@25", "b": "300@25", "c": "40@25", "one": "1@25", "bad": "error not_a_video"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("guidance")
    manifest = number_videos(root / "videos", VIDEOS)
    run = make_run(root / "store", root / "videos", manifest)
    commit_units(run)
    make_snapshot(run)
    return root / "store"


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    """Return a store of its own: 96x96 frames in cells of 8x8 pixels."""
    shutil.copytree(made, tmp_path / "store")
    return tmp_path / "store"


def import_boxes(path: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(["import-boxes", str(path), *arguments])
    return int(done.value.code or 0)


def labels(*boxes: tuple[float, float, float, float]) -> list[dict[str, object]]:
    sides = ("x1", "y1", "x2", "y2")
    return [{"category": "hand", "box2d": dict(zip(sides, box, strict=True))} for box in boxes]


def write_boxes(path: Path, clips: dict[str, dict[int, list[dict[str, object]]]]) -> Path:
    content = {
        clip_id: [{"name": f"{clip_id}/{number:04d}.jpg", "labels": each} for number, each in frames.items()]
        for clip_id, frames in clips.items()
    }
    path.write_text(json.dumps(content))
    return path


def test_annotated_boxes_become_boxes_and_areas(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hand, thing = (8.0, 16.0, 24.0, 32.0), (64.0, 64.0, 80.0, 96.0)
    file = write_boxes(
        tmp_path / "boxes.json",
        {"a": {1: labels(hand), 30: [], 60: labels(hand, thing)}, "gone": {1: labels(hand)}, "bad": {1: labels(hand)}},
    )
    assert import_boxes(path, "--boxes", str(file), "--name", "annotated") == 0
    told = capsys.readouterr()
    assert "1 clips" in told.out
    assert "58 of 60 frames are not annotated" in told.err
    assert "1 annotated, but not in the store: gone" in told.err
    assert "1 without a box in any frame, or failed in the store: bad" in told.err
    assert "3 clips of the store are not annotated" in told.err
    with open_store(path) as store:
        assert store.guidance_sources() == ["motion", "annotated"]
        boxes = store.frame_boxes("a", source="annotated")
        assert boxes.dtype == np.int32
        assert boxes[0].tolist() == [8, 16, 24, 32]
        assert boxes[-1].tolist() == [8, 16, 80, 96]
        areas = store.motion_areas("a", source="annotated")
        expected = np.zeros((12, 12), np.uint8)
        expected[2:4, 1:3] = 255
        np.testing.assert_array_equal(areas[0], expected)
        expected[8:12, 8:10] = 255
        np.testing.assert_array_equal(areas[-1], expected)
        np.testing.assert_array_equal(store.motion_areas("a", [59, 0], source="annotated"), areas[[59, 0]])
        # a clip that nobody annotated has no box and no area
        assert not has_box(store.frame_boxes("b", source="annotated")).any()
        assert store.frame_boxes("b", source="annotated").shape == (300, 4)
        assert not store.motion_areas("b", [0, 299], source="annotated").any()
        with pytest.raises(StoreError, match="source must be one of motion, annotated, got 'random'"):
            store.frame_boxes("a", source="random")


def test_masks_become_boxes_and_areas(path: Path, tmp_path: Path) -> None:
    mask = np.zeros((48, 48), np.uint8)  # half the size of the frames
    mask[8:16, 4:10] = 7
    (tmp_path / "masks" / "b").mkdir(parents=True)
    for number in range(1, 301):
        cv2.imwrite(str(tmp_path / "masks" / "b" / f"{number:05d}.png"), np.roll(mask, number // 10, axis=1))
    assert import_boxes(path, "--boxes", str(tmp_path / "masks"), "--name", "masks") == 0
    with open_store(path) as store:
        assert store.frame_boxes("b", source="masks")[[0, 299]].tolist() == [[8, 16, 20, 32], [68, 16, 80, 32]]
        expected = np.zeros((12, 12), np.uint8)
        expected[2:4, 1:3] = [255, 128]
        np.testing.assert_array_equal(store.motion_areas("b", [0], source="masks")[0], stored_areas(expected))


def test_a_new_version_replaces_the_old_one_and_gc_removes_it(path: Path, tmp_path: Path) -> None:
    for x in (8.0, 16.0):
        file = write_boxes(tmp_path / "boxes.json", {"a": {1: labels((x, 0.0, 40.0, 40.0))}})
        assert import_boxes(path, "--boxes", str(file), "--name", "annotated") == 0
        if x == 8.0:
            before = open_store(path)
            before.frame_boxes("a", source="annotated")
    assert open_store(path).frame_boxes("a", source="annotated")[0, 0] == 16
    assert before.frame_boxes("a", source="annotated")[0, 0] == 8
    assert find_garbage(path) == []  # a reader holds the old one
    before.close()
    (old,) = find_garbage(path)
    assert old.path.parts[-3:] == ("guidance", "annotated", "1")
    remove([old])
    assert find_garbage(path) == []
    (asked,) = find_garbage(path, drop_guidances=["annotated"])
    remove([asked])
    assert open_store(path).guidance_sources() == ["motion"]
    with pytest.raises(StoreError, match=r"must name a guidance of store .*, got 'annotated'"):
        find_garbage(path, drop_guidances=["annotated"])


def test_status_lists_guidances_and_gc_removes_the_one_that_is_named(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert import_boxes(path, "--name", "random", "--like", "motion", "--seed", "4") == 0
    assert import_boxes(path, "--name", "other", "--shuffle") == 0
    for arguments in (["status"], ["gc", "--delete"], ["gc", "--delete", "--guidance", "random"], ["status"]):
        with pytest.raises(SystemExit) as done:
            main([arguments[0], str(path), *arguments[1:]])
        assert not done.value.code
    told = capsys.readouterr().out
    assert told.count("guided  by 'random': 3 clips, 400 frames, motion at random places, seed 4") == 1
    assert told.count("guided  by 'other': 3 clips, 400 frames, motion of other clips, seed 0") == 2


def test_verify_names_a_damaged_guidance(path: Path) -> None:
    assert import_boxes(path, "--name", "random", "--like", "motion") == 0
    assert [check.name for check in verify_store(path) if check.problem] == []
    (paths,) = run_paths(path)
    file = paths.guidance("random", 1) / "areas.bin"
    file.write_bytes(file.read_bytes()[:-3])
    assert [check.name for check in verify_store(path) if check.problem] == ["guidance random 1"]


def test_random_areas_have_the_same_cells_elsewhere(path: Path) -> None:
    for name, seed in (("random", "1"), ("again", "1"), ("else", "2")):
        assert import_boxes(path, "--name", name, "--like", "motion", "--seed", seed) == 0
    with open_store(path) as store:
        moved = 0
        for clip_id in ("a", "b", "c"):
            areas = {name: store.motion_areas(clip_id, source=name) for name in store.guidance_sources()}
            boxes = {name: store.frame_boxes(clip_id, source=name) for name in store.guidance_sources()}
            flat = np.sort(areas["random"].reshape(len(areas["random"]), -1), axis=1)
            np.testing.assert_array_equal(flat, np.sort(areas["motion"].reshape(len(flat), -1), axis=1))
            np.testing.assert_array_equal(sizes(boxes["random"]), sizes(boxes["motion"]))
            assert boxes["random"].min() >= 0
            assert boxes["random"].max() <= 96
            np.testing.assert_array_equal(areas["random"], areas["again"])
            moved += not np.array_equal(areas["random"], areas["motion"])
            moved += not np.array_equal(areas["random"], areas["else"])
        assert moved >= 5


def test_worse_areas_are_moved_by_a_known_distance_and_smaller_by_a_known_share(path: Path) -> None:
    steps = {"same": (0.0, 0.0), "moved": (0.25, 0.0), "smaller": (0.0, 0.5), "worst": (0.25, 0.5)}
    for name, (shift, shrink) in steps.items():
        assert (
            import_boxes(path, "--name", name, "--like", "motion", "--shift", str(shift), "--shrink", str(shrink)) == 0
        )
    with open_store(path) as store:
        for clip_id in ("a", "b", "c"):
            areas = {name: store.motion_areas(clip_id, source=name) for name in store.guidance_sources()}
            boxes = {name: store.frame_boxes(clip_id, source=name) for name in store.guidance_sources()}
            np.testing.assert_array_equal(areas["same"], areas["motion"])
            np.testing.assert_array_equal(boxes["same"], boxes["motion"])
            counts = {name: np.count_nonzero(own, axis=(1, 2)) for name, own in areas.items()}
            np.testing.assert_array_equal(counts["moved"], counts["motion"])
            np.testing.assert_array_equal(counts["smaller"], [max(c > 0, round(c / 2)) for c in counts["motion"]])
            np.testing.assert_array_equal(counts["worst"], counts["smaller"])
            assert not (areas["smaller"][areas["motion"] == 0]).any()
            distance = np.hypot(*shift_of(areas["moved"], areas["motion"]))
            extent = np.sqrt(counts["motion"][counts["motion"] > 0].mean())
            assert abs(distance - 0.25 * extent) <= np.sqrt(0.5), "to the nearest cell"
            np.testing.assert_array_equal(sizes(boxes["moved"]), sizes(boxes["motion"]))
            shares = sizes(boxes["smaller"]).prod(1) / sizes(boxes["motion"]).prod(1)
            assert np.abs(shares - 0.5).max() < 0.1


def shift_of(moved: np.ndarray, areas: np.ndarray) -> tuple[int, int]:
    """Find by how many cells areas were rolled, down and to the right; the shortest way."""
    height, width = areas.shape[1:]
    for down in sorted(range(-(height // 2), height - height // 2), key=abs):
        for right in sorted(range(-(width // 2), width - width // 2), key=abs):
            if np.array_equal(np.roll(areas, (down, right), axis=(1, 2)), moved):
                return down, right
    raise AssertionError("not rolled")


def test_what_is_taken_off_an_area_is_its_rim() -> None:
    area = np.zeros((7, 9), np.uint8)
    area[1:6, 2:7] = np.arange(1, 26).reshape(5, 5)
    kept = shrunk_area(area, 0.64)
    np.testing.assert_array_equal(kept[2:5, 3:6], area[2:5, 3:6])
    assert np.count_nonzero(kept) == 9
    assert np.count_nonzero(shrunk_area(area, 0.999)) == 1
    np.testing.assert_array_equal(shrunk_area(area, 0.0), area)
    empty = np.zeros((3, 3), np.uint8)
    np.testing.assert_array_equal(shrunk_area(empty, 0.5), empty)


def sizes(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 2:] - boxes[:, :2]


def test_boxes_move_together_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    corner, size = rng.integers(20, 40, (50, 2)), rng.integers(1, 30, (50, 2))
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.int32)
    corners = set()
    for shift in rng.uniform(-500, 500, (30, 2)):
        moved = moved_boxes(boxes, shift, (100, 100))
        assert np.ptp(moved - boxes, axis=0).tolist() == [0, 0, 0, 0]
        assert moved.min() >= 0
        assert moved.max() <= 100
        corners.add(tuple(moved[0, :2].tolist()))
    assert len(corners) > 20
    whole = np.array([[0, 0, 100, 60], [3, 3, 9, 9]], np.int32)
    assert np.ptp((moved_boxes(whole, np.array([33.0, 7.0]), (100, 100)) - whole)[:, [0, 2]]) == 0
    missing = np.full((1, 4), -1, np.int32)
    np.testing.assert_array_equal(moved_boxes(missing, np.array([3.0, 3.0]), (100, 100)), missing)


def test_each_clip_gets_the_areas_of_another(path: Path) -> None:
    assert import_boxes(path, "--name", "other", "--shuffle") == 0
    with open_store(path) as store:
        areas = {clip_id: store.motion_areas(clip_id, source="other") for clip_id in ("a", "b", "c")}
        donors = {clip_id: donor_of(store, clip_id, areas[clip_id]) for clip_id in areas}
    assert sorted(donors.values()) == ["a", "b", "c"]
    assert all(clip_id != donor for clip_id, donor in donors.items())


def donor_of(store: Store, clip_id: str, areas: np.ndarray) -> str:
    for donor in ("a", "b", "c"):
        own = store.motion_areas(donor)
        if np.array_equal(areas, own[np.arange(len(areas)) * len(own) // len(areas)]):
            return donor
    raise AssertionError(f"{clip_id} has areas of no clip")


def test_other_clips_are_of_other_videos() -> None:
    videos = {f"{video}{number}": video for video in "uvw" for number in range(4)}
    for seed in range(20):
        donors = shuffled(list(videos), videos, seed)
        assert sorted(donors.values()) == sorted(videos)
        assert all(videos[donor] != videos[clip_id] for clip_id, donor in donors.items())
    lopsided = {"u0": "u", "u1": "u", "u2": "u", "v": "v"}
    assert all(donor != clip_id for clip_id, donor in shuffled(list(lopsided), lopsided, 0).items())
    with pytest.raises(InputError, match="two clips with guidance at least, got 1"):
        shuffled(["u"], {"u": "u"}, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "x"], "give either --boxes, or --like "),
        (["--name", "x", "--boxes", "nix.json", "--shuffle"], "give either --boxes"),
        (["--name", "motion", "--shuffle"], "--name must be a word"),
        (["--name", "../x", "--shuffle"], "--name must be a word"),
        (["--name", "x", "--boxes", "nix.json"], "nix.json does not exist"),
        (["--name", "x", "--shuffle", "--shift", "1"], "--shift and --shrink must come with --like"),
        (["--name", "x", "--boxes", "nix.json", "--shrink", "0.5"], "--shift and --shrink must come with --like"),
        (["--name", "x", "--like", "annotated"], "source must be one of motion, got 'annotated'"),
    ],
)
def test_what_cannot_be_imported_is_one_line(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert import_boxes(path, *arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert open_store(path).guidance_sources() == ["motion"]


def test_boxes_of_other_clips_and_other_sizes_are_refused(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_boxes(tmp_path / "boxes.json", {"nobody": {1: labels((0.0, 0.0, 9.0, 9.0))}})
    assert import_boxes(path, "--boxes", str(other), "--name", "x") == 2
    assert "must annotate at least one clip of store" in capsys.readouterr().err
    larger = write_boxes(tmp_path / "boxes.json", {"a": {1: labels((500.0, 300.0, 900.0, 700.0))}})
    assert import_boxes(path, "--boxes", str(larger), "--name", "x") == 2
    assert "boxes of clip 'a' must be in pixels of its 96x96 frames" in capsys.readouterr().err
    assert open_store(path).guidance_sources() == ["motion"]
    assert find_garbage(path) == []


def test_a_guidance_of_a_clip_that_changed_is_one_line(path: Path) -> None:
    assert import_boxes(path, "--name", "random", "--like", "motion") == 0
    with open_store(path) as store:
        store.frame_boxes("a", source="random")
        store._guidances["random"]._count = store._guidances["random"]._count + 1
        with pytest.raises(StoreError, match="made for 61 frames of clip 'a', which has 60; run the same"):
            store.motion_areas("a", source="random")
