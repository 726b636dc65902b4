import json
import pickle

import numpy as np
import pytest

from motionbox.errors import InputError
from motionbox.motion import boxes as bx
from motionbox.scoring.annotations import AnnotatedVideo, read_annotations
from motionbox.scoring.box_metrics import AnnotatedClip


def square(x1: float, y1: float, x2: float, y2: float) -> list[list[float]]:
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def entity(name: str, *polygons, **fields) -> dict:
    return {"id": name, "name": name, "class_id": 1, "exhaustive": "y", "segments": list(polygons), **fields}


def visor_frame(number: int, *entities: dict, video: str = "P01_01") -> dict:
    name = f"{video}_frame_{number:010d}.jpg"
    image = {"image_path": f"{video}_seq_00001/{name}", "name": name, "subsequence": "x", "video": video}
    return {"image": image, "annotations": list(entities)}


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def read_visor(tmp_path, *frames: dict, name: str = "P01_01.json", **options) -> list:
    return read_annotations(write(tmp_path / name, {"video_annotations": list(frames)}), **options)


HAND = entity("left hand", square(192, 108, 384, 216), in_contact_object="cup-id")
CUP = entity("cup", square(384, 108, 480, 540), id="cup-id")
TABLE = entity("table", square(0, 0, 1920, 1080))


def test_visor_counts_hands_and_what_they_touch(tmp_path):
    (video,) = read_visor(tmp_path, visor_frame(140, HAND, CUP, TABLE), visor_frame(20, TABLE))
    assert video.video_id == "P01_01"
    assert not video.renumbered
    np.testing.assert_array_equal(video.numbers, [20, 140])
    np.testing.assert_allclose(video.boxes, [bx.NO_BOX, (0.1, 0.1, 0.25, 0.5)])
    np.testing.assert_allclose(video.boxes_px(456, 256), [bx.NO_BOX, (45.6, 25.6, 114, 128)])


@pytest.mark.parametrize("contact", ["hand-not-in-contact", "none-of-the-above", "inconclusive", None])
def test_visor_hand_that_touches_nothing_known_stands_alone(tmp_path, contact):
    (video,) = read_visor(tmp_path, visor_frame(1, {**HAND, "in_contact_object": contact}, CUP))
    np.testing.assert_allclose(video.boxes, [(0.1, 0.1, 0.2, 0.2)])


def test_visor_worn_gloves_are_hands_and_others_are_not(tmp_path):
    glove = entity("glove", square(0, 0, 192, 108), on_which_hand="right hand", in_contact_object="cup-id")
    spare = entity("glove", square(0, 0, 1920, 1080), id="spare", on_which_hand=None, in_contact_object=None)
    (video,) = read_visor(tmp_path, visor_frame(1, glove, CUP, spare))
    np.testing.assert_allclose(video.boxes, [(0, 0, 0.25, 0.5)])
    hand_in_glove = {**HAND, "in_contact_object": "glove"}
    (video,) = read_visor(tmp_path, visor_frame(1, hand_in_glove, glove, CUP, spare))
    np.testing.assert_allclose(video.boxes, [(0, 0, 0.25, 0.5)])


def test_visor_without_contacts_counts_everything_and_dense_files_have_their_size(tmp_path):
    entities = (entity("right hand", square(0, 0, 427, 240)), entity("pan", square(427, 240, 854, 480), []))
    (video,) = read_visor(tmp_path, visor_frame(1, *entities), name="P01_01_interpolations.json")
    np.testing.assert_allclose(video.boxes, [(0, 0, 1, 1)])


def test_visor_polygons_of_one_entity_are_joined_and_cut_at_the_frame(tmp_path):
    hand = entity("left hand", square(-50, 540, 96, 1200), square(1824, 0, 2000, 54), in_contact_object=None)
    (video,) = read_visor(tmp_path, visor_frame(1, hand))
    np.testing.assert_allclose(video.boxes, [(0, 0, 1, 1)])


def test_visor_frames_are_renumbered_by_its_mapping(tmp_path):
    names = {
        "P01_01_frame_0000000140.jpg": "frame_0000000138.jpg",
        "P01_01_frame_0000000020.jpg": "frame_0000000020.jpg",
    }
    mapping = write(tmp_path / "frame_mapping.json", {"P01_01": names})
    folder = tmp_path / "annotations"
    folder.mkdir()
    (video,) = read_visor(folder, visor_frame(140, HAND, CUP), visor_frame(20, HAND, CUP), frame_mapping=mapping)
    np.testing.assert_array_equal(video.numbers, [20, 138])
    assert video.renumbered
    with pytest.raises(InputError, match=r"frame 1 .*mapping lacks P01_01_frame_0000000007\.jpg"):
        read_visor(folder, visor_frame(7, HAND, CUP), frame_mapping=mapping)
    write(mapping, ["P01_01"])
    with pytest.raises(InputError, match="must be an object of video"):
        read_visor(folder, visor_frame(20, HAND, CUP), frame_mapping=mapping)


def test_a_folder_is_all_its_files(tmp_path):
    with pytest.raises(InputError, match="must hold JSON files"):
        read_annotations(tmp_path)
    read_visor(tmp_path, visor_frame(1, HAND, CUP))
    read_visor(tmp_path, visor_frame(1, HAND, CUP, video="P02_101"), name="P02_101.json")
    assert [video.video_id for video in read_annotations(tmp_path)] == ["P01_01", "P02_101"]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ({}, "list of frames, got dict"),
        ([visor_frame(1, HAND, CUP), {"image": {}}], "frame 2 must hold image.name"),
        ([{"image": {"name": "P01_01_frame_0000000001.jpg"}, "annotations": []}], "frame 1 .*'video'"),
        ([visor_frame(1, {"name": "left hand"})], "frame 1 .*'segments'"),
        ([visor_frame(1, {"id": "a", "segments": []}, HAND)], "frame 1 .*'name'"),
        ([visor_frame(1, entity("left hand", [[1, 2], [3]]))], "frame 1"),
        ([visor_frame(1, entity("left hand", [1, 2, 3, 4]))], r"a polygon must be a list of finite \[x, y\]"),
        ([visor_frame(1, entity("left hand", [[1, float("nan")], [3, 4]]))], "finite"),
        ([visor_frame(1, entity("left hand", "abc"))], "frame 1"),
        ([visor_frame(1, HAND)], "in_contact_object of 'left hand' must be the id of an annotation, got 'cup-id'"),
        ([3], "frame 1"),
        ([{"image": {"name": "140.jpg", "video": "P01_01"}, "annotations": []}], "name must be like P01_01_frame"),
    ],
)
def test_malformed_visor_is_refused(tmp_path, frames, message):
    path = write(tmp_path / "P01_01.json", {"video_annotations": frames})
    with pytest.raises(InputError, match=message):
        read_annotations(path)


def detection(score: float, *box: float, **fields) -> dict:
    return {"bbox": dict(zip(("top_left_x", "top", "right", "bottom"), box, strict=True)), "score": score, **fields}


def test_hand_object_detections_written_by_the_official_library(tmp_path):
    hand = detection(0.9, 0.1, 0.2, 0.3, 0.4, state=3, side=0, object_offset={"x": 0.1, "y": 0.0})
    frames = [
        {"video_id": "P02_101", "frame_number": 7, "hands": [hand], "objects": [detection(0.5, 0.3, 0.1, 0.5, 0.2)]},
        {"video_id": "P02_101", "frame_number": 6, "hands": [], "objects": [detection(0.49, 0, 0, 1, 1)]},
    ]
    (video,) = read_annotations(write(tmp_path / "P02_101.json", frames))
    assert (video.video_id, video.renumbered) == ("P02_101", True)
    np.testing.assert_array_equal(video.numbers, [6, 7])
    np.testing.assert_allclose(video.boxes, [bx.NO_BOX, (0.1, 0.1, 0.5, 0.4)])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"video_id": "P01_01", "hands": [], "objects": []}, "frame_number"),
        ({"video_id": "P01_01", "frame_number": "3", "hands": [], "objects": []}, "whole number, got '3'"),
        ({"video_id": "P01_01", "frame_number": 3, "hands": []}, "objects"),
        ({"video_id": "P01_01", "frame_number": 3, "hands": [{"score": 1.0}], "objects": []}, "bbox"),
        ({"video_id": "P", "frame_number": 3, "hands": [detection(1, 10, 20, 30, 40)], "objects": []}, "shares"),
        ({"video_id": "P", "frame_number": 3, "hands": [detection(1, 0.5, 0, 0.2, 1)], "objects": []}, "shares"),
        ("P01_01", "frame 1 must hold video_id"),
    ],
)
def test_malformed_detections_are_refused(tmp_path, frame, message):
    with pytest.raises(InputError, match=message):
        read_annotations(write(tmp_path / "P01_01.json", [frame]))


class _Evil:
    """Would create a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(("name", "protocol"), [("P01_01.pkl", 0), ("P01_01.pkl", 4), ("renamed.json", 4)])
def test_pickles_are_never_opened(tmp_path, name, protocol):
    trace = tmp_path / "trace"
    path = tmp_path / name
    path.write_bytes(pickle.dumps([_Evil(trace)], protocol=protocol))
    with pytest.raises(InputError, match=r"is a pickle, which is never opened.*dataclasses\.asdict"):
        read_annotations(path)
    assert not trace.exists()


def test_forms_per_clip_are_read_as_before(tmp_path):
    label = {"box2d": {"x1": 1, "y1": 2, "x2": 3, "y2": 4}}
    (clip,) = read_annotations(write(tmp_path / "b.json", {"7": [{"name": "7/0002.jpg", "labels": [label]}]}))
    assert isinstance(clip, AnnotatedClip)
    np.testing.assert_array_equal(clip.boxes, [(1, 2, 3, 4)])
    with pytest.raises(InputError, match="does not exist"):
        read_annotations(tmp_path / "nowhere.json")


def test_missing_boxes_stay_missing_in_pixels():
    video = AnnotatedVideo("P01_01", np.array([1, 2]), np.array([bx.NO_BOX, (0, 0, 1, 0.5)], float))
    np.testing.assert_array_equal(video.boxes_px(100, 50), [bx.NO_BOX, (0, 0, 100, 25)])
