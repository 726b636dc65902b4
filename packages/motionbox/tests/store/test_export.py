import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from motionbox.commands.exchange import export as command
from motionbox.commands.extract import extract
from motionbox.errors import InputError
from motionbox.store import Store, open_store
from motionbox.store.export import export_store, mofo_stem


@pytest.fixture(scope="module")
def store(tmp_path_factory, write_video) -> Store:
    """Two clips of a bright square that moves, and a broken file."""
    root = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    background = rng.integers(60, 90, (64, 96), dtype=np.uint8)
    square = rng.integers(120, 255, (20, 20), dtype=np.uint8)
    videos = root / "videos"
    (videos / "sub").mkdir(parents=True)
    for name, speed in (("a.mkv", 2), ("sub/b.mkv", 3)):
        frames = np.stack([background] * 8)
        for i in range(8):
            frames[i, 20:40, 10 + speed * i : 30 + speed * i] = square
        write_video(videos / name, frames, codec="ffv1", pix_fmt="gray")
    (videos / "broken.mp4").write_bytes(b"broken")
    (videos / "annotations.csv").write_text("path,split\na.mkv,train\nsub/b.mkv,validation\nbroken.mp4,train\n")
    arguments = ["--data-root", str(videos), "--store", str(root / "store"), "--flow", "dis", "--executor", "serial"]
    assert CliRunner().invoke(extract, arguments, standalone_mode=False).return_value == 3
    return open_store(root / "store")


def test_mofo_json_is_the_authors_form(store, tmp_path):
    assert export_store(store, tmp_path / "m.json", "mofo-json") == 2
    content = json.loads((tmp_path / "m.json").read_text())
    assert set(content) == {"a", "b"}
    for stem, clip_id in (("a", "a"), ("b", "sub/b")):
        boxes = store.frame_boxes(clip_id)
        assert len(content[stem]) == len(boxes) == 8
        for frame, (x1, y1, x2, y2) in zip(content[stem], boxes.tolist(), strict=True):
            expected = {"x1": x1, "y1": y1, "x2": x2 - 1, "y2": y2 - 1}  # theirs names the last pixel
            assert frame == {"labels": [{"box2d": expected, "gt_annotation": "union"}]}


def test_csv_has_a_row_per_frame(store, tmp_path):
    export_store(store, tmp_path / "m.csv", "csv")
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["clip_id"] for row in rows] == ["a"] * 8 + ["sub/b"] * 8
    boxes = np.array([[int(row[name]) for name in ("x1", "y1", "x2", "y2")] for row in rows])
    assert np.array_equal(boxes, np.concatenate([store.frame_boxes("a"), store.frame_boxes("sub/b")]))
    assert [float(row["time_seconds"]) for row in rows[:8]] == store.frame_times("a").tolist()


def test_coco_links_images_videos_and_boxes(store, tmp_path):
    export_store(store, tmp_path / "c.json", "coco")
    content = json.loads((tmp_path / "c.json").read_text())
    assert [video["name"] for video in content["videos"]] == ["a", "sub/b"]
    assert len(content["images"]) == len(content["annotations"]) == 16
    by_id = {image["id"]: image for image in content["images"]}
    assert len(by_id) == 16
    for annotation in content["annotations"]:
        image = by_id[annotation["image_id"]]
        clip_id = content["videos"][image["video_id"] - 1]["name"]
        x1, y1, x2, y2 = store.frame_boxes(clip_id)[image["frame_id"]].tolist()
        assert annotation["bbox"] == [x1, y1, x2 - x1, y2 - y1]
        assert annotation["area"] == (x2 - x1) * (y2 - y1) > 0
        assert annotation["category_id"] == content["categories"][0]["id"]
        assert (image["width"], image["height"]) == (96, 64)


def test_one_split_and_wrong_names(store, tmp_path):
    assert export_store(store, tmp_path / "m.json", "mofo-json", split="validation") == 1
    assert set(json.loads((tmp_path / "m.json").read_text())) == {"b"}
    with pytest.raises(InputError, match="split must be one of train, validation, got 'test'"):
        export_store(store, tmp_path / "m.json", "csv", split="test")
    with pytest.raises(InputError, match="format must be one of"):
        export_store(store, tmp_path / "m.json", "xml")
    with pytest.raises(
        InputError, match=r"cannot write .*m\.json/m\.csv: what it lies below is no folder; choose another path"
    ):
        export_store(store, tmp_path / "m.json/m.csv", "csv")


def test_stems():
    assert [mofo_stem(name) for name in ("a", "x/y/12", "a.mp4", "v1.2/take.webm", ".hidden")] == [
        "a",
        "12",
        "a",
        "take",
        ".hidden",
    ]


def test_command_says_what_it_left_out(store, tmp_path):
    arguments = [str(store.path), "--format", "csv", "-o", str(tmp_path / "m.csv")]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.return_value == 0
    assert "2 clips (1 without boxes left out)" in result.output
    for split, told in (
        ("train", "1 clips (1 without boxes left out); 1 clips are of other splits"),
        ("validation", "1 clips; 2 clips are of other splits"),
    ):
        arguments = [str(store.path), "--format", "csv", "-o", str(tmp_path / "m.csv"), "--split", split]
        assert CliRunner().invoke(command, arguments, standalone_mode=False).output.strip().endswith(f": {told}")
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["m.csv"]
