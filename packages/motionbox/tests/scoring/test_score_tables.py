import json

import numpy as np
import pyarrow as pa
import pytest

from motionbox.errors import InputError
from motionbox.scoring.annotations import AnnotatedVideo
from motionbox.scoring.box_metrics import AnnotatedClip, ClipScore
from motionbox.scoring.score_tables import ScoreRow, clip_table, markdown_table, score_store

BOXES = np.array([[0, 0, 20, 20], [10, 0, 30, 20], [20, 0, 40, 20]], np.int16)


class FakeStore:
    """Two clips: one of three frames at 10 fps, one that failed."""

    path = "a-store"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def clips(self):
        rows = [
            {
                "clip_id": "a",
                "video_id": "P01_01",
                "num_frames": 3,
                "width": 100,
                "height": 50,
                "fps": 10.0,
                "confidence": 0.5,
            },
            {
                "clip_id": "broken",
                "video_id": "P01/P01_02.MP4",
                "num_frames": 0,
                "width": None,
                "height": None,
                "fps": None,
                "confidence": None,
            },
        ]
        return pa.Table.from_pylist(rows)

    def frame_times(self, _clip_id):
        return np.array([5.0, 5.1, 5.2])  # an annotated segment of a long video

    def frame_boxes(self, _clip_id):
        return BOXES

    def frame_size(self, _clip_id):
        return 100, 50

    def frame_cells_wh(self, _clip_id):
        return 10.0, 5.0

    def grid_hw(self, _clip_id):
        return 5, 10

    info = {"motion_maps": True}  # noqa: RUF012

    def guidance_sources(self):
        return ["motion"]

    def motion_areas(self, _clip_id, *, source):
        """Fifteen of fifty cells are inside: the left three columns."""
        assert source == "motion"
        areas = np.zeros((3, 5, 10), np.uint8)
        areas[:, :, :3] = 255
        return areas


def truth(clip_id: str, numbers=(1, 2, 3), boxes=BOXES) -> AnnotatedClip:
    return AnnotatedClip(clip_id, np.array(numbers), np.array(boxes, float))


def test_store_is_scored_beside_trivial_boxes(tmp_path):
    rows, missing = score_store(FakeStore(), [truth("a"), truth("broken"), truth("elsewhere")])
    assert missing == 2
    assert [row.name for row in rows] == ["full frame", "centre half", "true clip box", "best constant box", "store"]
    assert rows[-1].scores[0].frame_iou == 1
    assert rows[-1].confidences == [0.5]
    assert rows[0].scores[0].frame_iou == pytest.approx(400 / 5000)


def test_annotated_frames_are_found_by_time(tmp_path):
    every_second = truth("a", (1, 2), BOXES[[0, 2]])
    rows, _ = score_store(FakeStore(), [every_second], fps=5.0)
    assert rows[-1].scores[0].frame_iou == 1
    rows, _ = score_store(FakeStore(), [every_second])
    assert rows[-1].scores[0].frame_iou == pytest.approx((1 + 1 / 3) / 2)


def video(numbers, boxes=BOXES, video_id="P01_01") -> AnnotatedVideo:
    return AnnotatedVideo(video_id, np.array(numbers), np.array(boxes) / [100, 50, 100, 50])


def test_annotated_videos_are_scored_on_the_frames_within_each_clip(tmp_path):
    # Number n is at n / 60 s: 300 is the first frame of clip "a", 306 the second; 298 and 330 are outside.
    boxes = np.array([[50, 0, 99, 50], BOXES[0], BOXES[1], [50, 0, 99, 50]])
    rows, missing = score_store(FakeStore(), [video([298, 300, 306, 330], boxes)])
    assert missing == 0
    assert rows[-1].clip_ids == ["a"]
    np.testing.assert_allclose(rows[-1].frame_ious[0], [1, 1])
    assert rows[-1].scores[0].frame_iou == 1


def test_rate_of_annotated_videos_is_epics_own_or_given(tmp_path):
    rows, _ = score_store(FakeStore(), [video([255, 260], BOXES[[1, 2]])], fps=50.0)
    np.testing.assert_allclose(rows[-1].frame_ious[0], [1, 1])
    with pytest.raises(InputError, match="at least one clip"):
        score_store(FakeStore(), [video([255, 260], BOXES[[1, 2]])])  # at 60 per second they are before the clip


def test_videos_without_a_scored_clip_are_counted(tmp_path):
    videos = [video([300, 306, 312]), video([300, 306, 312], video_id="P01_02"), video([1], BOXES[:1], "P09_01")]
    assert score_store(FakeStore(), videos)[1] == 2


def test_no_common_clip_is_an_error_that_names_clips(tmp_path):
    with pytest.raises(InputError, match="begin with a, broken"):
        score_store(FakeStore(), [truth("elsewhere")])


def row(name: str, *frame_ious: float, milliseconds: tuple[float, ...] = ()) -> ScoreRow:
    scores = [ClipScore(value, 0.5, 0.75, 0.25, 0.625, 0.01) for value in frame_ious]
    return ScoreRow(name, [f"clip{k}" for k in range(len(scores))], scores, [], list(milliseconds))


def test_markdown_table():
    lines = markdown_table([row("full frame", 0.5, 0.5), row("ours", 0.5, 0.5, milliseconds=(1.0, 2.0))]).splitlines()
    assert lines[0] == "| boxes | frame IoU | IoU > .5 | coverage | area | clip IoU | jitter | ms/frame |"
    assert lines[2].endswith("| 0.0100 |  |")
    assert lines[3] == "| ours | 0.500 (0.50 to 0.50) | 0.50 | 0.75 | 0.25 | 0.625 (0.62 to 0.62) | 0.0100 | 1.5 |"
    assert "ms/frame" not in markdown_table([row("full frame", 0.5)])


def test_clip_table():
    lines = clip_table([row("a", 0.1, 0.2), row("b", 0.3, 0.4)]).splitlines()
    assert lines[0] == "| clip | a | b |"
    assert lines[3] == "| clip1 | 0.20 / 0.62 | 0.40 / 0.62 |"


@pytest.fixture
def opens_a_store(monkeypatch):
    """Whatever the commands open is the store of this file."""
    monkeypatch.setattr("motionbox.store.open_store", lambda *_, **__: FakeStore())


@pytest.mark.usefixtures("opens_a_store")
def test_command_scores_a_store(tmp_path):
    from click.testing import CliRunner

    from motionbox.commands.evaluate import evaluate as command

    frames = [
        {"name": f"a/{k + 1:04d}.jpg", "labels": [{"box2d": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}]}
        for k, box in enumerate(BOXES.tolist())
    ]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"a": frames}))
    result = CliRunner().invoke(command, [str(tmp_path), "--boxes", str(path), "--per-clip"], standalone_mode=False)
    assert result.return_value == 0
    assert "| areas | clips | inside, of all patches | of the strongest 30% | lift |" in result.output
    assert "| motion | 1 |" in result.output
    assert "| frame boxes | 1 |" in result.output
    assert "| store | 1.000 (1.00 to 1.00)" in result.output
    assert "| a | 0.08" in result.output
    plot = tmp_path / "plot.png"
    result = CliRunner().invoke(command, [str(tmp_path), "--boxes", str(path), "--plot", str(plot)])
    assert f"plot: {plot}" in result.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"end in \.png"):
        CliRunner().invoke(
            command, [str(tmp_path), "--boxes", str(path), "--plot", "x.svg"], standalone_mode=False,
            catch_exceptions=False,
        )  # fmt: skip
    path.write_text(json.dumps({"a": frames, "gone": frames}))
    assert CliRunner().invoke(command, [str(tmp_path), "--boxes", str(path)], standalone_mode=False).return_value == 3


@pytest.mark.usefixtures("opens_a_store")
def test_command_says_when_visors_numbers_are_not_epics(tmp_path, caplog):
    from click.testing import CliRunner

    from motionbox.commands.evaluate import evaluate as command

    hand = {"id": "h", "name": "left hand", "segments": [[[0, 0], [384, 0], [384, 432]]]}
    name = "P01_01_frame_0000000300.jpg"
    frame = {"image": {"name": name, "video": "P01_01"}, "annotations": [hand]}
    path = tmp_path / "P01_01.json"
    path.write_text(json.dumps({"video_annotations": [frame]}))
    result = CliRunner().invoke(command, [str(tmp_path), "--boxes", str(path)], standalone_mode=False)
    assert "| store | 1.000" in result.output
    assert "taken for EPIC's" in caplog.text
    mapping = tmp_path / "frame_mapping.json"
    mapping.write_text(json.dumps({"P01_01": {name: "frame_0000000312.jpg"}}))
    caplog.clear()
    result = CliRunner().invoke(
        command, [str(tmp_path), "--boxes", str(path), "--frame-mapping", str(mapping)], standalone_mode=False
    )
    assert "| store | 0.000" in result.output
    assert caplog.text == ""
