import csv
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from motionbox.commands.exchange import import_list
from motionbox.errors import InputError
from motionbox.inputs.folder.annotations import read_annotations
from motionbox.inputs.folder.listed import ListedMedia
from motionbox.inputs.lists.importing import ImportedList, read_list, usual_split, write_annotations
from motionbox.inputs.manifest import load_manifest


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def frames(root: Path, name: str, first: int, count: int) -> None:
    touch(root, *(f"{name}/img_{number:05}.jpg" for number in range(first, first + count)))


def run(*arguments: str | Path) -> tuple[str, str]:
    """Import lists; return what was written to standard output and standard error."""
    result = CliRunner().invoke(import_list, [str(argument) for argument in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout, result.stderr


def imported(list_path: Path, root: Path, *options: str) -> list[dict[str, object]]:
    """Import a list and return the clips that the data set then has, without what is null."""
    run(list_path, "--data-root", root, "--force", *options)
    table = load_manifest("folder", root, require_media=False)
    return [{name: cell for name, cell in row.items() if cell is not None} for row in table.to_pylist()]


def test_imported_lists_are_a_data_set_as_training_wants_it(tmp_path):
    root = touch(tmp_path / "data", "v/1.mp4", "v/2.mp4", "v/3.mp4")
    (tmp_path / "train.csv").write_text(f'{root}/v/1.mp4 "closing something" 5\n{root}/v/2.mp4 "opening, it" 6\n')
    (tmp_path / "val.csv").write_text(f'{root}/v/3.mp4 "closing something" 5\n')
    arguments = [tmp_path / "train.csv", tmp_path / "val.csv", "--data-root", root]
    assert "3 clips of 2 lists (2 train, 1 validation)" in run(*arguments)[0]
    table = load_manifest("folder", root)
    assert table["clip_id"].to_pylist() == ["v/1", "v/2", "v/3"]
    assert table["split"].to_pylist() == ["train", "train", "validation"]
    assert table["label_id"].to_pylist() == [5, 6, 5]
    assert table["label"].to_pylist() == ["closing something", "opening, it", "closing something"]
    with pytest.raises(
        InputError, match=r"annotations\.csv exists; choose another with -o, or replace it with --force"
    ):
        run(*arguments)
    run(*arguments, "--force", "--split", "all")
    assert set(load_manifest("folder", root)["split"].to_pylist()) == {"all"}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[(name, "train") for name in ("train", "sthv2_train_list_videos", "trainlist01", "ucf101-training", "TRAIN")],
        *[(name, "validation") for name in ("val", "valid", "kinetics400_val_list", "dev", "validation")],
        *[(name, "test") for name in ("test", "testlist02", "my.testing")],
        *[(name, name) for name in ("trainval_train_val", "clips", "evaluate", "contest")],
    ],
)
def test_splits_get_their_usual_names(name, split):
    assert usual_split(name) == split


def test_segments_of_a_folder_are_clips_of_their_frames(tmp_path):
    frames(tmp_path, "frames/182040", 1, 60)
    (tmp_path / "l.txt").write_text("frames/182040 1 20\nframes/182040 41 20\n")
    one, two = imported(tmp_path / "l.txt", tmp_path)
    assert (one["video_id"], two["video_id"]) == ("frames/182040", "frames/182040")
    assert [(clip["start_frame"], clip["stop_frame"]) for clip in (one, two)] == [(1, 20), (41, 60)]
    # file number n has time n / 30, and a clip ends before the first frame that is not its own
    assert [(clip["start_seconds"], clip["stop_seconds"]) for clip in (one, two)] == [
        (1 / 30, 21 / 30),
        (41 / 30, 61 / 30),
    ]
    assert one["frame_fps_assumed"] is True


def test_whole_folders_are_whole_from_whatever_number_they_count(tmp_path):
    frames(tmp_path, "a", 1, 9)
    frames(tmp_path, "b", 0, 7)
    (tmp_path / "l.txt").write_text("a 0 9\nb 0 7\n")
    assert [(clip["start_frame"], clip["stop_frame"]) for clip in imported(tmp_path / "l.txt", tmp_path)] == [
        (1, 9),
        (0, 6),
    ]
    (tmp_path / "l.txt").write_text("a 0 5\nb 0 7\n")
    with pytest.raises(InputError, match="line 1: frames 0 to 4 must be in 'a', which holds 1 to 9"):
        imported(tmp_path / "l.txt", tmp_path)


def test_frames_beside_their_flow_are_counted_alone(tmp_path):
    frames(tmp_path, "a", 1, 9)
    touch(tmp_path, *(f"a/flow_{axis}_{number:05}.jpg" for axis in "xy" for number in range(1, 9)))
    (tmp_path / "l.txt").write_text("a 9 3\n")
    assert imported(tmp_path / "l.txt", tmp_path)[0]["label_id"] == 3


@pytest.mark.parametrize(
    ("text", "options", "wanted"),
    [
        ("a b.mp4 1\n", (), {"path": "a b.mp4", "label_id": 1}),
        ("sub\\c.mp4 1\n", (), {"path": "sub/c.mp4", "label_id": 1}),
        ("./sub//c.mp4 1\n", (), {"path": "sub/c.mp4"}),
        ("sub/c 1\n", (), {"path": "sub/c.mp4", "label_id": 1}),
        ("78687 1\n", (), {"path": "deep/down/78687.webm", "label_id": 1}),
        ("d.MP4\n", (), {"path": "d.MP4"}),
        ("/home/me/data/sub/c.mp4 1\n", ("--prefix", "/home/me/data/"), {"path": "sub/c.mp4"}),
        ("C:\\data\\sub\\c.mp4 1\n", ("--prefix", "C:\\data"), {"path": "sub/c.mp4"}),
        ("path,label\nsub/c.mp4,push\n", (), {"path": "sub/c.mp4", "label": "push"}),
        ("path,label\nsub/c.mp4,4.0\n", (), {"label_id": 4}),
        ("Video Name;Class;Split;Mood\r\nsub/c.mp4;4;val;good\r\n", (), {"split": "validation", "Mood": "good"}),
        ("Video Name;Class;Split;Mood\r\nsub/c.mp4;4;val;good\r\n", (), {"label_id": 4}),
        ("path label\nsub/c.mp4 4\n", (), {"path": "sub/c.mp4", "label_id": 4}),
        ("filename\nsub/c.mp4\n", (), {"path": "sub/c.mp4"}),
        (
            "label,youtube_id,time_start,time_end,split\nclimbing,--6bJUbfpnQ,17,27,validate\n",
            (),
            {"path": "k/--6bJUbfpnQ_000017_000027.mp4", "label": "climbing", "split": "validate"},
        ),
    ],
)  # fmt: skip
def test_paths_and_tables_as_people_have_them(tmp_path, text, options, wanted):
    root = touch(tmp_path / "data", "a b.mp4", "sub/c.mp4", "deep/down/78687.webm", "d.MP4",
                 "k/--6bJUbfpnQ_000017_000027.mp4")  # fmt: skip
    (tmp_path / "l.txt").write_text(text, newline="")
    [clip] = imported(tmp_path / "l.txt", root, *options)
    assert clip.items() >= wanted.items()
    assert (root / str(clip["path"])).is_file()


def test_absolute_paths_reach_the_root_through_links(tmp_path):
    root = touch(tmp_path / "mnt/disk/data", "v/1.mp4")
    (tmp_path / "home").symlink_to(tmp_path / "mnt/disk")
    (tmp_path / "l.txt").write_text(f"{tmp_path}/home/data/v/1.mp4 3\n")
    assert imported(tmp_path / "l.txt", root)[0]["path"] == "v/1.mp4"
    (tmp_path / "l.txt").write_text(f"{root}/v/1.mp4 3\n")
    assert imported(tmp_path / "l.txt", tmp_path / "home/data")[0]["path"] == "v/1.mp4"
    # a link below the root may lead anywhere: the video stays where the list says
    touch(tmp_path, "other/2.mp4")
    (root / "v/2.mp4").symlink_to(tmp_path / "other/2.mp4")
    (tmp_path / "l.txt").write_text(f"{tmp_path}/home/data/v/2.mp4 3\n")
    assert imported(tmp_path / "l.txt", root)[0]["path"] == "v/2.mp4"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", "/elsewhere/b.mp4 1\n", r"line 1: path must lie below the data root .*--prefix"),
        ("l.txt", "ok.mp4 0\n../b.mp4 1\n", r"line 2: path must lie below the data root, without '\.\.'"),
        ("l.txt", "C:\\data\\b.mp4 1\n", "line 1: path must lie below the data root .*--prefix"),
        (
            "l.txt",
            "https://bucket/b.mp4 1\n",
            "line 1: a path must be local, got 'https://bucket/b.mp4'; only a store or a data root",
        ),
        ("l.txt", "two/x 1\n", "line 1: path must name one file, got 'two/x' for two/x.mp4 and two/x.mkv"),
        ("l.txt", "path,video\na.mp4,b.mp4\n", None),
        ("l.txt", "file,video,label\na.mp4,b.mp4,1\n", "columns 'file' and 'video' may both be the paths"),
        ("brush_hair_test_split1.txt", "a.avi 1\n", "is an HMDB51 split file, whose numbers are no labels"),
        ("l.txt", "path label\na b.mp4 3\n", "line 2 must have 2 fields like the header, got 3"),
        ("l.txt", "path,label\na.mp4,1,2\n", "must be a CSV table"),
    ],
)
def test_lists_that_cannot_be_placed_are_refused(tmp_path, name, text, message):
    root = touch(tmp_path / "data", "two/x.mp4", "two/x.mkv", "ok.mp4")
    (tmp_path / name).write_text(text)
    if message is None:
        assert imported(tmp_path / name, root)[0]["path"] == "a.mp4"
        return
    with pytest.raises(InputError, match=message):
        imported(tmp_path / name, root)
    assert not (root / "annotations.csv").exists()


def test_what_was_taken_for_granted_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    root = touch(tmp_path / "data", "v/1.mp4")
    (tmp_path / "train.txt").write_text("v/1 1\nv/2.mp4 2\n")
    run(tmp_path / "train.txt", "--data-root", root)
    assert "1 paths were completed by the file on disk" in caplog.text
    assert "1 clips are not below" in caplog.text
    assert "labels run from 1 to 2, so class 0 has no clip" in caplog.text


PATHS = st.lists(
    st.text(st.sampled_from("ab1 .,;\"'#/-é"), min_size=1, max_size=9)
    .map(lambda text: str(Path("v") / text.strip("/") / "x.mp4"))
    .filter(lambda text: ".." not in text and "//" not in text),
    min_size=1,
    max_size=5,
)
LABELS = st.one_of(st.none(), st.integers(0, 99))
CLASS_NAMES = st.text(st.sampled_from("ab,;\"'é "), min_size=1, max_size=6)


@given(PATHS, LABELS, CLASS_NAMES, st.one_of(st.none(), st.tuples(st.integers(0, 9), st.integers(1, 9))))
def test_what_is_written_is_read_again(tmp_path_factory, paths, label, name, span):
    """The same clips, whatever paths and names hold; ids are unique, and one file has one video id."""
    root = tmp_path_factory.getbasetemp()
    span_cells = {} if span is None else {"start_frame": str(span[0]), "stop_frame": str(span[0] + span[1])}
    rows = [{"path": p, "split": "train", "label_id": "" if label is None else str(label), "label": name, **span_cells}
            for p in paths]  # fmt: skip
    write_annotations([ImportedList(Path("l.txt"), rows)], root / "roundtrip.csv")
    table = read_annotations(root / "roundtrip.csv")
    assert table["path"].to_pylist() == paths
    assert table["label"].to_pylist() == [name] * len(paths)
    assert ("label_id" in table.column_names) == (label is not None)
    if label is not None:
        assert table["label_id"].to_pylist() == [label] * len(paths)
    assert table["start_frame"].to_pylist() == [None if span is None else span[0]] * len(paths)
    assert len(set(table["clip_id"].to_pylist())) == len(paths)
    assert len(set(zip(table["video_id"].to_pylist(), paths, strict=True))) == len(set(paths))
    assert len(set(table["video_id"].to_pylist())) == len(set(paths))


def test_a_root_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "l.txt").write_text("a.mp4 1\n")
    with pytest.raises(InputError, match="none must be a folder; name another with --data-root"):
        run(tmp_path / "l.txt", "--data-root", tmp_path / "none")
    with pytest.raises(
        InputError, match=r"cannot write .*l\.txt/a\.csv: what it lies below is no folder; choose another path"
    ):
        run(tmp_path / "l.txt", "--data-root", tmp_path, "-o", tmp_path / "l.txt/a.csv")


def test_a_list_of_many_segments_lists_each_folder_once(tmp_path, monkeypatch):
    frames(tmp_path, "a", 1, 40)
    (tmp_path / "l.txt").write_text("".join(f"a {first} 5\n" for first in range(1, 36)))
    counts: dict[str, int] = {}
    listdir = os.listdir

    def counting(folder):
        counts[str(folder)] = counts.get(str(folder), 0) + 1
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", counting)
    assert len(read_list(tmp_path / "l.txt", ListedMedia(tmp_path)).rows) == 35
    assert max(counts.values()) <= 2


def test_the_file_is_a_table_that_any_program_reads(tmp_path):
    (tmp_path / "l.txt").write_text('"a ""b"".mp4" "push, left" 5\n')
    run(tmp_path / "l.txt", "--data-root", tmp_path)
    with (tmp_path / "annotations.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.DictReader(stream)) == [
            {"path": 'a "b".mp4', "split": "l", "label_id": "5", "label": "push, left"}
        ]
