import hashlib
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from motionbox.commands.extract import extract
from motionbox.errors import InputError
from motionbox.inputs import epic100, ssv2
from motionbox.inputs.data_check import check_data, load_data_manifest
from motionbox.inputs.manifest import DATASETS, load_manifest
from motionbox.store import open_store


def report_of(dataset, root):
    return check_data(dataset, root, load_manifest(dataset, root, require_media=False))


def test_every_data_set_but_folder_has_a_data_manifest():
    for dataset in DATASETS:
        manifest = load_data_manifest(dataset)
        assert (manifest is None) == (dataset == "folder")


def test_counts_add_up():
    for dataset in ("epic100", "ssv2"):
        manifest = load_data_manifest(dataset)
        assert manifest.num_clips == sum(file.num_clips or 0 for file in manifest.files)


def test_data_manifests_agree_with_the_readers():
    epic = load_data_manifest("epic100")
    assert epic.annotation_folders == epic100.ANNOTATION_FOLDERS
    assert {f.split: f.name for f in epic.files if f.split} == epic100.SPLIT_FILES
    assert (epic.vocabulary["verb_class"], epic.vocabulary["noun_class"]) == (epic100.NUM_VERBS, epic100.NUM_NOUNS)
    something = load_data_manifest("ssv2")
    assert something.annotation_folders == ssv2.ANNOTATION_FOLDERS
    assert something.frame_rate["rate_of_frame_folders"] == ssv2.FRAME_FPS


def test_checksums_and_counts_are_those_of_the_official_files(testdata):
    for dataset in ("epic100", "ssv2"):
        for file in load_data_manifest(dataset).files:
            path = testdata / dataset / file.name
            if path.exists() and file.sha256 is not None:
                assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
            if path.exists() and file.split is not None:
                assert len(path.read_text().rstrip("\n").split("\n")) - 1 == file.num_clips
    with (testdata / "epic100/EPIC_100_video_info.csv").open() as lines:
        assert sum(1 for _ in lines) - 1 == load_data_manifest("epic100").num_videos
    assert len(json.loads((testdata / "ssv2/labels.json").read_text())) == 174


def something_root(tmp_path, num_videos=10, num_there=3):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "labels.json").write_text('{"Closing something": "0"}')
    records = [{"id": str(i), "template": "Closing [something]"} for i in range(num_videos)]
    (tmp_path / "train.json").write_text(json.dumps(records))
    (tmp_path / "videos").mkdir()
    for i in range(num_there):
        (tmp_path / f"videos/{i}.webm").touch()
    return tmp_path


def test_report_counts_and_names_what_is_missing(tmp_path):
    report = report_of("ssv2", something_root(tmp_path))
    text = "\n".join(report.lines)
    assert "train.json: 10 of 168,913 clips" in text
    assert "labels.json: differs from the official file" in text
    assert "validation.json: not there; needed for the validation split" in text
    assert "videos: 3 of 10 that the clips name are there" in text
    assert "missing: 7 .webm (7 of 10 clips)" in text
    assert "    videos/3.webm" in report.lines
    assert "    and 2 more" in report.lines
    assert report.missing_by_kind == {".webm": 7}
    with pytest.raises(
        InputError, match=r"7 of 10 videos \(7 clips\) are missing: videos/3.webm, .*--allow-missing"
    ) as caught:
        report.require(allow_missing=False)
    assert "\n" not in str(caught.value)
    report.require(allow_missing=True)


def test_nothing_there_is_refused_even_if_missing_is_allowed(tmp_path):
    report = report_of("ssv2", something_root(tmp_path, num_there=0))
    with pytest.raises(InputError, match="10 of 10 videos"):
        report.require(allow_missing=True)


def test_complete_data_passes(tmp_path):
    report = report_of("ssv2", something_root(tmp_path, num_there=10))
    report.require(allow_missing=False)
    assert not any("missing" in line for line in report.lines)


def test_folder_has_a_short_report(tmp_path):
    (tmp_path / "a.mp4").touch()
    assert report_of("folder", tmp_path).lines[1:] == ("  videos: 1 of 1 that the clips name are there",)


def test_official_annotations_are_recognised(testdata, tmp_path):
    shutil.copy(testdata / "epic100/EPIC_100_validation.csv", tmp_path)
    report = report_of("epic100", tmp_path)
    assert "  EPIC_100_validation.csv: 9,668 clips, the official file" in report.lines
    assert any(line.startswith("  EPIC_100_train.csv: not there; needed for") for line in report.lines)
    assert report.missing_by_kind == {".MP4": 138}


def test_extract_says_what_is_missing_before_any_work(tmp_path, write_video, caplog):
    caplog.set_level("INFO")
    root = something_root(tmp_path / "data", num_videos=2, num_there=0)
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    write_video(root / "videos/1.webm", frames, codec="libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"})
    store = tmp_path / "store"
    arguments = ["--dataset", "ssv2", "--data-root", str(root), "--store", str(store), "--flow", "dis"]
    arguments += ["--executor", "serial"]
    refused = CliRunner().invoke(extract, arguments, standalone_mode=False)
    assert isinstance(refused.exception, InputError)
    assert "  videos: 1 of 2 that the clips name are there" in "\n".join(caplog.messages).splitlines()
    assert not store.exists()
    result = CliRunner().invoke(extract, [*arguments, "--allow-missing"], standalone_mode=False)
    assert result.return_value == 3
    rows = open_store(store).clips().select(["clip_id", "status", "reason"]).to_pylist()
    assert [row["clip_id"] for row in rows] == ["0", "1"]
    assert rows[0]["status"] == "failed"
    assert rows[0]["reason"].startswith("missing: ")
    assert rows[1]["status"] in ("ok", "no_motion")
