"""The official layouts in small, through the real command from the first file to the report."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from motionbox.cli import main
from motionbox.flow import compute_flow
from motionbox.store import open_store
from motionbox.video import probe, read_frames

VIDEOS = {
    "4": ("Closing [something]", "door"),
    "2003": ("Opening [something]", "box"),
    "13201": ("Folding [something]", "cloth"),
}


def motionbox(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def extract(dataset: str, root: Path, store: Path, *options: str) -> int:
    basics = ("--dataset", dataset, "--data-root", root, "--store", store, "--flow", "dis", "--executor", "serial")
    return motionbox("extract", *basics, *options)


@pytest.fixture
def epic(testdata: Path, tmp_path: Path) -> Path:
    """Two annotated segments of P01_06 as official frames, beside the official CSV of the validation split."""
    root = tmp_path / "epic100"
    (root / "annotations").mkdir(parents=True)
    shutil.copy(testdata / "epic100/mini_frames/EPIC_100_mini.csv", root / "annotations/EPIC_100_train.csv")
    shutil.copy(testdata / "epic100/EPIC_100_validation.csv", root / "annotations")
    frames = root / "EPIC-KITCHENS/P01/rgb_frames/P01_06"
    frames.parent.mkdir(parents=True)
    frames.symlink_to(testdata / "epic100/mini_frames/P01/rgb_frames/P01_06")
    return root


def test_epic_kitchens(epic: Path, tmp_path: Path, capsys) -> None:
    assert extract("epic100", epic, tmp_path / "s", "--split", "train", "--save", "flow", "--clips", "jpeg") == 0
    shown = capsys.readouterr()
    assert "EPIC_100_train.csv: 2 of 67,217 clips" in shown.err
    assert "EPIC_100_validation.csv: the official file" in shown.err
    assert "videos: 1 of 1 that the clips name are there" in shown.err
    assert "2 clips, 108 frame boxes" in shown.out
    store = open_store(tmp_path / "s")
    put, take = store.clips().to_pylist()
    wanted = {"clip_id": "P01_06_90", "video_id": "P01_06", "status": "ok", "split": "train", "verb_class": 1}
    assert put.items() >= (wanted | {"noun_class": 14, "narration": "put fork", "width": 456, "height": 256}).items()
    assert (take["clip_id"], take["verb_class"], take["noun_class"]) == ("P01_06_92", 0, 9)
    assert take["action_id"] is put["action_id"] is None  # two clips know nothing of the other 3,804 actions
    assert "action_id is left out" in shown.err
    assert store.clips().schema.field("verb_class").metadata == {b"num_classes": b"97"}
    for clip, first, last in ((put, 20484, 20533), (take, 20643, 20700)):
        numbers = np.rint(store.frame_times(clip["clip_id"]) * 60).astype(int)
        assert numbers.tolist() == list(range(first, last + 1))
        boxes = store.frame_boxes(clip["clip_id"]).astype(int)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= (456, 256)).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()
    flow = store.flow("P01_06_90", [10, 11])
    assert flow.shape == (2, 256, 456, 2)
    assert store.clip_frames("P01_06_90", [10, 11]).shape == (2, 256, 456, 3)
    assert motionbox("report", tmp_path / "s", "-o", tmp_path / "report.html") == 0
    assert "P01_06_92" in (tmp_path / "report.html").read_text()


def test_epic_kitchens_tars_and_whole_videos_give_the_same_clips(epic: Path, tmp_path: Path) -> None:
    assert extract("epic100", epic, tmp_path / "folder", "--split", "train") == 0
    frames = epic / "EPIC-KITCHENS/P01/rgb_frames/P01_06"
    with tarfile.open(frames.with_suffix(".tar"), "w") as tar:
        for path in sorted(frames.iterdir()):
            tar.add(path, path.name)
    assert extract("epic100", epic, tmp_path / "all", "--split", "train", "--spans", "all") == 0
    frames.unlink()
    assert extract("epic100", epic, tmp_path / "tar", "--split", "train") == 0
    folder, tar, whole = (open_store(tmp_path / name) for name in ("folder", "tar", "all"))
    assert tar.clips()["path"].to_pylist() == ["EPIC-KITCHENS/P01/rgb_frames/P01_06.tar"] * 2
    for clip_id in ("P01_06_90", "P01_06_92"):
        assert (folder.frame_times(clip_id) == tar.frame_times(clip_id)).all()
        assert (folder.frame_boxes(clip_id) == tar.frame_boxes(clip_id)).all()
        assert (folder.frame_boxes(clip_id) == whole.frame_boxes(clip_id)).all()
    assert len(whole.video_rows("P01_06")) == 108


@pytest.fixture
def something(testdata: Path, tmp_path: Path) -> Path:
    """Three real videos in the official layout, with classes of the official list, and one that is missing."""
    root = tmp_path / "ssv2"
    (root / "20bn-something-something-v2").mkdir(parents=True)
    shutil.copy(testdata / "ssv2/labels.json", root / "something-something-v2-labels.json")
    records = [
        {"id": name, "label": template.replace("[something]", noun), "template": template, "placeholders": [noun]}
        for name, (template, noun) in VIDEOS.items()
    ]
    gone = {"id": "5", "label": "closing a jar", "template": "Closing [something]", "placeholders": ["a jar"]}
    (root / "something-something-v2-train.json").write_text(json.dumps(records))
    (root / "something-something-v2-validation.json").write_text(json.dumps([gone]))
    for name in VIDEOS:
        (root / f"20bn-something-something-v2/{name}.webm").symlink_to(testdata / f"ssv2/{name}.webm")
    return root


def test_something_something(something: Path, testdata: Path, tmp_path: Path, capsys) -> None:
    assert extract("ssv2", something, tmp_path / "s") == 2
    refused = capsys.readouterr().err
    assert "1 of 4 videos (1 clips) are missing: 20bn-something-something-v2/5.webm" in refused
    assert not (tmp_path / "s").exists()
    save = ("--save", "flow", "--set", "store.flow=uint8")
    assert extract("ssv2", something, tmp_path / "s", "--allow-missing", *save) == 3
    store = open_store(tmp_path / "s")
    rows = {row["clip_id"]: row for row in store.clips().to_pylist()}
    labels = json.loads((testdata / "ssv2/labels.json").read_text())
    for name, (template, noun) in VIDEOS.items():
        path = testdata / f"ssv2/{name}.webm"
        row, info, frames = rows[name], probe(path), list(read_frames(path))
        assert row["label_id"] == int(labels[template.replace("[", "").replace("]", "")])
        assert (row["caption"], row["split"]) == (template.replace("[something]", noun), "train")
        assert (row["status"], row["width"], row["height"]) == ("ok", info.width, info.height)
        assert store.frame_times(name).tolist() == [frame.time_seconds for frame in frames]
        assert store.frame_boxes(name).shape == (len(frames), 4)
    failed = rows["5"]
    assert (failed["status"], failed["reason"].split(":")[0], failed["split"]) == ("failed", "missing", "validation")
    flow = store.flow("13201", [20])[0]
    frames = list(read_frames(testdata / "ssv2/13201.webm"))
    wanted = compute_flow(frames[20].grey, frames[21].grey, method="dis")
    assert np.abs(flow - np.clip(wanted, -20, 20)).max() <= 20 / 254 + 1e-3
