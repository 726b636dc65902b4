import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from motionbox.cli import cli, main
from motionbox.errors import StoreError
from motionbox.store import open_store


def run(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


def frame_folder(root: Path, name: str, count: int, *, size: int = 64) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    base = np.random.default_rng(1).integers(0, 80, (size, size), np.uint8)
    base = cv2.GaussianBlur(base, (5, 5), 0)
    for index in range(count):
        image = base.copy()
        x = 4 + 3 * index % (size - 24)
        image[20:36, x : x + 16] = cv2.resize(base[:8, :8], (16, 16)) + 120
        cv2.imwrite(str(folder / f"img_{index + 1:05d}.png"), image)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name, count in (("one", 14), ("sub/two", 20), ("three", 1)):
        frame_folder(root, name, count)
    return root


def extract(root: Path, store: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    return run("extract", "--data-root", root, "--store", store, "--flow", "dis", *options, capsys=capsys)


def test_a_folder_of_frame_folders(folders: Path, tmp_path: Path, capsys) -> None:
    code, out, err = extract(folders, tmp_path / "s", "--workers", "0", capsys=capsys)
    assert (code, "3 clips, 35 frame boxes" in out, "3/3 clips" in err) == (0, True, True)
    store = open_store(tmp_path / "s")
    rows = {row["clip_id"]: row for row in store.clips().to_pylist()}
    assert {name: (row["status"], row["num_frames"]) for name, row in rows.items()} == {
        "one": ("ok", 14),
        "sub/two": ("ok", 20),
        "three": ("no_motion", 1),
    }
    boxes = store.frame_boxes("one").astype(int)
    centres = (boxes[2:10, 0] + boxes[2:10, 2]) / 2
    assert np.all(np.abs(centres - (4 + 3 * np.arange(2, 10) + 8)) < 10)  # the boxes follow the square


def segments(root: Path) -> Path:
    """A data set of one long frame folder with two annotated segments."""
    root.mkdir()
    frame_folder(root, "long", 24 * 5)
    (root / "annotations.csv").write_text(
        "path,video_id,clip_id,start_seconds,stop_seconds,frame_fps\nlong,long,a,5.2,6.6,5\nlong,long,b,13.4,14.2,5\n"
    )
    return root


def test_spans_add_rows_and_leave_the_clips_alone(tmp_path: Path, capsys) -> None:
    root = segments(tmp_path / "data")
    seen = {}
    for name, options in {
        "narrow": ("--set", "frames.span_margin_seconds=0"),
        "default": (),
        "all": ("--spans", "all"),
    }.items():
        code, _, err = extract(root, tmp_path / name, *options, "--workers", "0", capsys=capsys)
        assert code == 0, err
        with open_store(tmp_path / name) as store:
            clips = store.clips()
            assert clips.column("num_frames").to_pylist() == [7, 4]
            boxes = [store.frame_boxes(clip).tolist() for clip in ("a", "b")]
            rows = store.video_rows("long")
            seen[name] = (len(rows), boxes)
            times = rows["time_seconds"].to_numpy()
            assert (np.diff(times) > 0).all()
            with pytest.raises(StoreError, match="video_id must be a finished video"):
                store.video_rows("short")
    # blocks of 4 s at 5 frames per second: {1, 3}; with a margin of 1 s block 3 begins at 12.4, so still {1, 3}
    assert [count for count, _ in seen.values()] == [40, 40, 120]
    assert seen["narrow"][1] == seen["default"][1] == seen["all"][1]


def test_spans_make_another_run_only_where_they_change_something(folders: Path, tmp_path: Path, capsys) -> None:
    root = segments(tmp_path / "data")
    assert extract(root, tmp_path / "s", "--workers", "0", capsys=capsys)[0] == 0
    code, _, err = extract(root, tmp_path / "s", "--spans", "all", "--workers", "0", capsys=capsys)
    assert (code, "frames.spans: 'annotated' -> 'all'" in err) == (2, True)
    for options in ((), ("--spans", "all"), ("--set", "frames.span_margin_seconds=3")):  # clips here are whole videos
        assert extract(folders / "one", tmp_path / "w", *options, "--workers", "0", capsys=capsys)[0] == 0


def test_one_frame_folder_and_one_video(folders: Path, tmp_path: Path, write_video, capsys) -> None:
    code, out, _ = extract(folders / "one", tmp_path / "s1", "--workers", "0", capsys=capsys)
    assert (code, "1 clips, 14 frame boxes" in out) == (0, True)
    frames = np.random.default_rng(0).integers(0, 255, (6, 48, 64), np.uint8)
    video = write_video(tmp_path / "clip.mp4", frames)
    code, out, _ = extract(video, tmp_path / "s2", "--executor", "serial", capsys=capsys)
    assert (code, "1 clips, 6 frame boxes" in out) == (0, True)
    assert open_store(tmp_path / "s2").clips().column("clip_id").to_pylist() == ["clip"]


def test_training_clips_of_overlapping_segments(folders: Path, tmp_path: Path, write_video, capsys) -> None:
    """From the decoding child to the reader: the pixels of the source, whatever the executor."""
    frames = [cv2.imread(str(path)) for path in sorted((folders / "sub/two").iterdir())]
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data/v.mp4", np.stack(frames * 3), options={"crf": "10"})
    rows = ("v.mp4,one,0.5,2.0", "v.mp4,two,1.0,5.0", "v.mp4,all,,")
    (tmp_path / "data/annotations.csv").write_text("\n".join(["path,clip_id,start_seconds,stop_seconds", *rows]))
    code, out, _ = extract(tmp_path / "data", tmp_path / "s", "--clips", "--workers", "0", capsys=capsys)
    assert (code, "training clips (h264): 3" in out) == (0, True)
    store = open_store(tmp_path / "s")
    for clip_id, first, count in (("one", 6, 18), ("two", 12, 48), ("all", 0, 60)):
        read = store.clip_frames(clip_id, range(count)).astype(int)
        assert len(store.frame_times(clip_id)) == count
        for position in range(0, count, 5):
            distances = [np.abs(read[position] - frame[..., ::-1]).mean() for frame in frames]
            assert int(np.argmin(distances)) == (first + position) % 20
            assert min(distances) < 4
    code, _, err = extract(tmp_path / "data", tmp_path / "s", "--workers", "0", capsys=capsys)
    assert (code, "store.clips: 'h264' -> 'none'" in err) == (2, True)


def test_training_clips_of_odd_files(testdata: Path, tmp_path: Path, capsys) -> None:
    """What came before a fault is kept in colour too, upright; what cannot be read has no frames and ends nothing."""
    names = ("corrupted_after_frame28_720p", "rotation_meta_90", "derived_garbage", "derived_tiny_16x12")
    (tmp_path / "odd").mkdir()
    for path in (testdata / "odd").iterdir():
        if path.stem in names:
            (tmp_path / "odd" / path.name).symlink_to(path)
    assert extract(tmp_path / "odd", tmp_path / "s", "--clips", "jpeg", "--workers", "0", capsys=capsys)[0] == 3
    store = open_store(tmp_path / "s")
    assert {name: store.has_clip(name) for name in names} == dict(zip(names, (True, True, False, False), strict=True))
    for name in names[:2]:
        width, height = store.clip_size(name)
        count = len(store.frame_times(name))
        assert store.clip_frames(name, [0, count - 1]).shape == (2, height, width, 3)
        assert min(width, height) <= 256


def test_every_odd_file_gets_a_clear_row(testdata: Path, tmp_path: Path, capsys) -> None:
    code, out, _ = extract(testdata / "odd", tmp_path / "s", "--workers", "0", capsys=capsys)
    assert code == 3
    rows = {row["clip_id"]: row for row in open_store(tmp_path / "s").clips().to_pylist()}
    assert len(rows) == len(list((testdata / "odd").iterdir()))
    found = {name: (row["status"], row["reason"].split(":")[0]) for name, row in rows.items() if row["status"] != "ok"}
    assert found.pop("corrupted_after_frame28_720p")[0] == "partial"
    assert found == {
        "derived_all_black": ("no_motion", "static"),
        "derived_garbage": ("failed", "not_a_video"),
        "derived_single_frame": ("no_motion", "one_frame"),
        "derived_static_same_frame": ("no_motion", "static"),
        "derived_text_renamed": ("failed", "not_a_video"),
        "derived_tiny_16x12": ("failed", "too_small"),
        "derived_truncated_60pct": ("partial", "truncated"),
        "derived_zero_bytes": ("failed", "empty_file"),
        "derived_zero_frames": ("failed", "no_frames"),
        "git_lfs_pointer_130bytes": ("failed", "lfs_pointer"),
    }
    for name in found:
        if found[name][0] in ("failed", "partial"):
            assert name in out
    rotated = rows["rotation_meta_90"]
    upright = rows["rotation_meta_0"]
    assert (rotated["width"], rotated["height"]) == (upright["height"], upright["width"])


def test_changed_parameters_and_resuming(folders: Path, tmp_path: Path, capsys) -> None:
    assert extract(folders, tmp_path / "s", "--workers", "0", capsys=capsys)[0] == 0
    code, _, err = extract(folders, tmp_path / "s", "--workers", "0", "--set", "boxes.pad_share=0.2", capsys=capsys)
    assert (code, "boxes.pad_share: 0.0 -> 0.2" in err, "--new-run" in err) == (2, True, True)
    options = ("--workers", "0", "--set", "boxes.pad_share=0.2", "--new-run")
    assert extract(folders, tmp_path / "s", *options, capsys=capsys)[0] == 0
    assert open_store(tmp_path / "s").config().boxes.pad_share == 0.2
    code, out, _ = run("status", tmp_path / "s", capsys=capsys)
    assert (code, out.count("units   1 of 1 committed")) == (0, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data-root", "nowhere"], "data root nowhere does not exist"),
        (["--preset", "papre"], "preset must be one of"),
        (["--set", "boxes.pad_shar=1"], "did you mean 'boxes.pad_share'?"),
        (["--set", "flow.epsilon=1"], "did you mean 'flow.tvl1.epsilon'?"),
        (["--set", "boxes.zzz=1"], "valid keys: boxes.max_height_share"),
        (["--set", "pad"], "--set must be section.key=value, got 'pad'"),
        (["--store", "{file}"], "cannot be written"),
        (["--store", "{other}"], "another program"),
        (["--split", "train"], "split must be"),
        (["--backend", "numba"], "backend of flow method dis"),
        (["--gpus", "1"], "--gpus needs Ray workers"),
        (["--config", "none.toml"], "none.toml does not exist"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(folders, tmp_path: Path, capsys, options: list[str], message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "store.json").write_text('{"format": "x"}')
    texts = [option.format(file=tmp_path / "file", other=tmp_path / "other") for option in options]
    code, _, err = extract(folders, tmp_path / "s", "--workers", "0", *texts, capsys=capsys)
    assert (code, message in err, len(err.strip().splitlines())) == (2, True, 1), err


def test_an_empty_folder_is_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = extract(tmp_path / "empty", tmp_path / "s", capsys=capsys)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert not (tmp_path / "s").exists()


def test_help_is_complete() -> None:
    text = CliRunner().invoke(cli, ["extract", "--help"]).output
    for option in ("--data-root", "--store", "--workers", "--ray-address", "--new-run", "--force", "--preset"):
        assert option in text


def test_a_run_is_named_by_its_preset(folders: Path, tmp_path: Path, capsys) -> None:
    """Every command that reads takes either of two presets in a store; of two runs of one the id must be given."""
    store, written = tmp_path / "s", {}
    for preset in ("paper", "tuned"):
        assert extract(folders, store, "--preset", preset, "--new-run", "--workers", "0", capsys=capsys)[0] == 0
    for preset in ("paper", "tuned"):
        with open_store(store, run=preset) as opened:
            assert opened.config().preset == preset
            truth = {"one": [{"labels": [{"box2d": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}]}
                             for box in opened.frame_boxes("one").tolist()]}  # fmt: skip
        (tmp_path / "boxes.json").write_text(json.dumps(truth))
        named = ("--run", preset)
        code, out, _ = run("evaluate", store, "--boxes", tmp_path / "boxes.json", *named, capsys=capsys)
        assert (code, "| store | 1.000 (1.00 to 1.00)" in out) == (0, True), "its own boxes are the truth"
        code, *_ = run("export", store, "--format", "csv", "-o", tmp_path / "b.csv", *named, capsys=capsys)
        written[preset] = (tmp_path / "b.csv").read_text()
        assert run("report", store, "-o", tmp_path / "r.html", "--previews", "0", *named, capsys=capsys)[0] == code == 0
        assert f"<td class=number>{preset}</td>" in (tmp_path / "r.html").read_text()
    assert written["paper"] != written["tuned"]
    code, *_ = run(
        "show", store, "one", "--run", "paper", "--against", "tuned", "-o", tmp_path / "a.png", capsys=capsys
    )
    assert code == 0
    changed = ("--set", "boxes.pad_share=0.2", "--new-run", "--workers", "0")
    assert extract(folders, store, "--preset", "paper", *changed, capsys=capsys)[0] == 0
    with pytest.raises(StoreError, match=r"got 'paper'; its runs: \w+ \(paper\), \w+ \(tuned\), \w+ \(paper\)"):
        open_store(store, run="paper")


def test_bad_entries_are_failed_rows_and_the_rest_is_done(tmp_path: Path, capsys) -> None:
    root = tmp_path / "data"
    frame_folder(root, "good", 6)
    (root / "two\nlines.mp4").touch()
    (root / "empty.mp4").touch()
    code, out, _ = extract(root, tmp_path / "s", "--workers", "0", capsys=capsys)
    rows = {row["clip_id"]: row for row in open_store(tmp_path / "s").clips().to_pylist()}
    assert code == 3
    assert rows["good"]["status"] == "ok"
    assert rows[r"two\nlines"]["reason"] == (
        "unreadable: name holds a line end or another control character; rename it"
    )
    assert rows["empty"]["reason"].startswith("empty_file")
    assert r"failed   two\nlines" in out
    assert "refused" not in rows["good"]


def test_frames_without_a_rate_are_said_to_be_and_can_be_given_one(folders: Path, tmp_path: Path, capsys) -> None:
    _, _, err = extract(folders, tmp_path / "s", "--workers", "0", capsys=capsys)
    assert "30 fps assumed for 3 frame folders (--frame-fps)" in err
    clips = open_store(tmp_path / "s").clips()
    assert (clips["fps"].to_pylist(), clips["frame_fps_assumed"].to_pylist()) == ([30.0] * 3, [True] * 3)
    code, _, err = extract(folders, tmp_path / "t", "--workers", "0", "--frame-fps", "12", capsys=capsys)
    given = open_store(tmp_path / "t")
    assert (code, "assumed" in err, "frame_fps_assumed" in given.clips().column_names) == (0, False, False)
    assert given.clips()["fps"].to_pylist() == [12.0] * 3
    assert given.frame_times("one").tolist() == [number / 12 for number in range(1, 15)]


def test_segments_of_a_frame_folder_are_cut_by_number(folders: Path, tmp_path: Path, capsys) -> None:
    root = tmp_path / "data"
    frame_folder(root, "long", 40)
    (tmp_path / "train.txt").write_text("long 3 10\nlong 21 20\n")
    assert run("import-list", tmp_path / "train.txt", "--data-root", root, capsys=capsys)[0] == 0
    assert extract(root, tmp_path / "s", "--workers", "0", "--frame-fps", "12", capsys=capsys)[0] == 0
    store = open_store(tmp_path / "s")
    assert store.frame_times("long_0").tolist() == [number / 12 for number in range(3, 13)]
    assert store.frame_times("long_1").tolist() == [number / 12 for number in range(21, 41)]


def test_files_that_share_a_stem_are_two_videos(tmp_path: Path, capsys) -> None:
    root = tmp_path / "data"
    frame_folder(root, "clip.001", 6)
    frame_folder(root, "clip.002", 9, size=48)
    (root / "annotations.csv").write_text("path,label\nclip.001,1\nclip.002,2\n")
    assert extract(root, tmp_path / "s", "--workers", "0", capsys=capsys)[0] == 0
    rows = {row["label"]: row for row in open_store(tmp_path / "s").clips().to_pylist()}
    assert {label: (row["num_frames"], row["width"]) for label, row in rows.items()} == {1: (6, 64), 2: (9, 48)}


def test_retry_failed_does_a_replaced_video_again(tmp_path: Path, capsys) -> None:
    root = tmp_path / "data"
    frame_folder(root, "good", 6)
    (root / "bad").mkdir()
    (root / "bad/1.png").touch()
    assert extract(root, tmp_path / "s", "--workers", "0", capsys=capsys)[0] == 3
    (root / "bad/1.png").unlink()
    frame_folder(tmp_path, "bad", 7)
    for frame in (tmp_path / "bad").iterdir():
        frame.rename(root / "bad" / frame.name)
    assert extract(root, tmp_path / "s", "--workers", "0", capsys=capsys)[0] == 2
    code, _, err = extract(root, tmp_path / "s", "--workers", "0", "--retry-failed", capsys=capsys)
    assert code == 0
    assert "1 videos in 1 units are done again, 1 of their files replaced: bad" in err
    assert len(open_store(tmp_path / "s").frame_boxes("bad")) == 7
    code, _, err = extract(root, tmp_path / "s", "--workers", "0", "--retry-failed", capsys=capsys)
    assert (code, "no video of this run has failed" in err) == (0, True)
