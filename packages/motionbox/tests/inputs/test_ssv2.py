import json
from pathlib import Path

import pyarrow.compute as pc
import pytest

from motionbox.errors import InputError
from motionbox.inputs.manifest import load_manifest

LABELS = {"Putting something into something": "1", "Closing something": "0"}
TRAIN = [
    {"id": "7", "label": "closing box", "template": "Closing [something]", "placeholders": ["box"]},
    {"id": "12", "label": "putting pen into box", "template": "Putting [something] into [something]"},
]


def write(root: Path, prefix: str = "", folder: str = ".", **files) -> Path:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, content in {"labels": LABELS, "train": TRAIN, **files}.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (root / folder / f"{prefix}{name}.json").write_text(text)
    return root


def load(root: Path, **options):
    return load_manifest("ssv2", root, require_media=False, **options)


@pytest.mark.parametrize(("prefix", "folder"), [("", "."), ("something-something-v2-", "."), ("", "labels")])
def test_records_become_clips(tmp_path, prefix, folder):
    table = load(write(tmp_path, prefix, folder, test=[{"id": "3"}]))
    assert table["clip_id"].to_pylist() == ["7", "12", "3"]
    assert table["path"].to_pylist()[0] == "20bn-something-something-v2/7.webm"
    assert table["label_id"].to_pylist() == [0, 1, None]
    assert table["template"].to_pylist() == ["Closing something", "Putting something into something", None]
    assert table["caption"].to_pylist() == ["closing box", "putting pen into box", None]
    assert table["split"].to_pylist() == ["train", "train", "test"]
    assert load(tmp_path, split="test")["clip_id"].to_pylist() == ["3"]


def test_media_layouts(tmp_path):
    write(tmp_path)
    (tmp_path / "frames/7").mkdir(parents=True)
    table = load(tmp_path)
    assert (table["path"][0].as_py(), table["frame_fps"][0].as_py()) == ("frames/7", 12.0)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/7.webm").touch()
    table = load(tmp_path)
    assert (table["path"][0].as_py(), table["frame_fps"][0].as_py()) == ("videos/7.webm", None)
    with pytest.raises(InputError, match=r"1 of 2 videos \(1 clips\) are missing: videos/12.webm"):
        load_manifest("ssv2", tmp_path)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("20bn-something-something-v2/7.mp4",), ("20bn-something-something-v2/7.mp4", None)),
        (("videos/7.WEBM",), ("videos/7.WEBM", None)),
        (("7.webm",), ("7.webm", None)),
        (("20bn-something-something-v2/12.webm", "videos/7.mkv"), ("videos/7.mkv", None)),
        (("rawframes/7/img_00001.jpg",), ("rawframes/7", 12.0)),
        (("20bn-something-something-v2/7/00001.jpg",), ("20bn-something-something-v2/7", 12.0)),
        (("frames/7.tar",), ("frames/7.tar", 12.0)),
        (("rawframes/7/img_00001.jpg", "videos/7.webm"), ("videos/7.webm", None)),
        (("videos/12.webm",), ("videos/7.webm", None)),
        (("77.webm",), ("20bn-something-something-v2/7.webm", None)),
    ],
)
def test_other_usual_layouts(tmp_path, names, wanted):
    write(tmp_path)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    table = load(tmp_path)
    assert (table["path"][0].as_py(), table["frame_fps"][0].as_py()) == wanted


def test_frames_of_another_rate_can_be_said_to_be(tmp_path):
    write(tmp_path)
    (tmp_path / "rawframes/7").mkdir(parents=True)
    assert load(tmp_path, frame_fps=24.0)["frame_fps"].to_pylist() == [24.0, None]
    with pytest.raises(InputError, match="frame_fps must be left out for epic100, whose numbers count at 60 or 50"):
        load_manifest("epic100", epic_root(tmp_path / "epic"), require_media=False, frame_fps=30.0)


def epic_root(root: Path) -> Path:
    header = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame"
    root.mkdir()
    row = "P01_11_0,P01,P01_11,00:00:01.00,00:00:02.00,60,120"
    (root / "EPIC_100_test_timestamps.csv").write_text(f"{header}\n{row}\n")
    return root


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train": [{"id": "7", "template": "Eating [something]"}]},
            "template must be one of labels.json, got 'Eating",
        ),
        ({"train": [{"id": "7"}]}, "record 0 must have 'id' and 'template'"),
        ({"train": ["7"]}, "record 0 must have 'id' and 'template', got '7'"),
        ({"train": [{"id": None, "template": "Closing [something]"}]}, "id must be a string, got None"),
        ({"train": {"id": "7"}}, "must be a list of records, got dict"),
        ({"train": "[{"}, "must be a JSON file in UTF-8"),
        ({"train": "[" * 100_000}, "must be a JSON file in UTF-8"),
        ({"labels": ["a"]}, "must be an object like"),
        ({"labels": {"a": "x"}}, "must be an object like"),
        ({"train": [*TRAIN, TRAIN[0]]}, "clip_id must be unique, got '7'"),
        ({"train": [{"id": "../7", "template": "Closing [something]"}]}, "path must stay below the data root"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, **files))


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"has none of train.json, validation.json, test.json"):
        load(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps(TRAIN))
    with pytest.raises(InputError, match=r"has no labels\.json"):
        load(tmp_path)


def test_official_files(testdata, tmp_path):
    (tmp_path / "labels.json").symlink_to(testdata / "ssv2/labels.json")
    (tmp_path / "train.json").symlink_to(testdata / "ssv2/train.sample4000.json")
    table = load(tmp_path)
    assert table.num_rows == 4000
    assert 0 <= pc.min(table["label_id"]).as_py() <= pc.max(table["label_id"]).as_py() <= 173
    labels = json.loads((testdata / "ssv2/labels.json").read_text())
    assert len(labels) == 174
    for row in table.slice(0, 300).to_pylist():
        assert labels[row["template"]] == str(row["label_id"])
        assert "[" not in row["template"]


def test_real_frame_folders_are_read_by_number(testdata, tmp_path):
    ids = sorted(path.name for path in (testdata / "ssv2/boxes_dev/frames").iterdir() if path.is_dir())
    write(tmp_path, train=[{"id": clip_id, "template": "Closing [something]"} for clip_id in ids])
    (tmp_path / "frames").symlink_to(testdata / "ssv2/boxes_dev/frames")
    assert load_manifest("ssv2", tmp_path)["clip_id"].to_pylist() == ids
