import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionbox.errors import InputError
from motionbox.extraction.snapshot import _RESULT_SCHEMA
from motionbox.inputs.folder.annotations import read_annotations
from motionbox.inputs.folder.scan import find_media
from motionbox.inputs.manifest import load_manifest
from motionbox.inputs.schema import RESULT_COLUMNS, notes_of, num_assumed_rates, validate_manifest


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def ids(root: Path, **options) -> list[str]:
    return load_manifest("folder", root, **options)["clip_id"].to_pylist()


def test_ids_are_the_paths_below_the_root_without_extension(tmp_path):
    touch(tmp_path, "b.mp4", "sub/dir.d/a.v1.webm", "c.txt", "frames/one/2.jpg", "frames/one/10.jpg", ".git/x.mp4")
    table = load_manifest("folder", tmp_path)
    assert dict(zip(table["clip_id"].to_pylist(), table["path"].to_pylist(), strict=True)) == {
        "b": "b.mp4",
        "frames/one": "frames/one",
        "sub/dir.d/a.v1": "sub/dir.d/a.v1.webm",
    }
    assert table["video_id"] == table["clip_id"]
    assert table["start_seconds"].null_count == table["stop_frame"].null_count == 3


def test_extension_stays_where_two_files_share_the_rest(tmp_path):
    touch(tmp_path, "a.mp4", "a.webm", "b.mp4", "c.mp4", "c/1.png")
    assert sorted(ids(tmp_path)) == ["a.mp4", "a.webm", "b", "c", "c.mp4"]


def test_a_kept_extension_may_collide_in_turn(tmp_path):
    touch(tmp_path, "a.mp4", "a.webm", "a.mp4.mkv")
    assert sorted(ids(tmp_path)) == ["a.mp4", "a.mp4.mkv", "a.webm"]


def test_images_beside_videos_are_no_clip(tmp_path):
    touch(tmp_path, "a.mp4", "cover.jpg", "sub/b.mp4", "sub/cover.jpg")
    assert ids(tmp_path) == ["a", "sub/b"]


def test_one_file_and_one_frame_folder(tmp_path):
    touch(tmp_path, "kitchen.mp4", "frames/1.jpg")
    one = load_manifest("folder", tmp_path / "kitchen.mp4")
    assert one.select(["clip_id", "path"]).to_pylist() == [{"clip_id": "kitchen", "path": "."}]
    assert (tmp_path / "kitchen.mp4" / one["path"][0].as_py()).is_file()  # pathlib drops the dot
    folder = load_manifest("folder", tmp_path / "frames")
    assert folder.select(["clip_id", "path"]).to_pylist() == [{"clip_id": "frames", "path": "."}]


def test_natural_order_and_tars(tmp_path):
    touch(tmp_path, "v10.mp4", "v9.mp4", "v1.tar")
    assert ids(tmp_path) == ["v1", "v9", "v10"]


def test_linked_folders_are_followed_once(tmp_path):
    touch(tmp_path, "real/a.mp4")
    (tmp_path / "real/loop").symlink_to(tmp_path / "real")
    (tmp_path / "more").symlink_to(tmp_path / "real")
    assert len(ids(tmp_path)) == 1


def test_missing_and_empty_folders_say_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"does not exist; .*--data-root"):
        load_manifest("folder", tmp_path / "none")
    with pytest.raises(InputError, match="holds no video"):
        load_manifest("folder", tmp_path)
    with pytest.raises(InputError, match="motionbox synth"):
        load_manifest("synthetic", tmp_path)


def test_bad_entries_are_rows_that_say_why(tmp_path):
    touch(tmp_path, "good.mp4", "two\nlines.mp4", r"a\xff.mp4")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.mp4")).touch()
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/dir\xfe")).mkdir()
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/dir\xfe/b.mp4")).touch()
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    table = load_manifest("folder", tmp_path)
    assert dict(zip(table["path"].to_pylist(), table["refused"].to_pylist(), strict=True)) == {
        "good.mp4": None,
        r"a\xff.mp4": None,  # this one has a backslash in its name
        r"a\xff.mp4~": "name is not UTF-8; rename it",
        r"dir\xfe/b.mp4": "name is not UTF-8; rename it",
        r"two\nlines.mp4": "name holds a line end or another control character; rename it",
    }
    assert len(set(table["video_id"].to_pylist())) == table.num_rows
    assert find_media(tmp_path) == [r"a\xff.mp4", "good.mp4"]


def test_a_folder_that_cannot_be_entered_is_a_row(tmp_path, other_user):
    touch(tmp_path, "good.mp4", "lost+found/a.mp4")
    (tmp_path / "lost+found").chmod(0)
    with other_user():
        table = load_manifest("folder", tmp_path)
    assert table.select(["clip_id", "refused"]).to_pylist() == [
        {"clip_id": "good", "refused": None},
        {"clip_id": "lost+found", "refused": "folder cannot be entered: Permission denied"},
    ]
    (tmp_path / "lost+found").chmod(0o700)


def test_a_root_that_cannot_be_read_is_one_line(tmp_path, other_user):
    touch(tmp_path, "locked/a.mp4")
    (tmp_path / "locked").chmod(0)
    with other_user(), pytest.raises(InputError, match="locked cannot be read: Permission denied"):
        load_manifest("folder", tmp_path / "locked")
    with other_user(), pytest.raises(InputError, match="locked/a does not exist; name it with --data-root"):
        load_manifest("folder", tmp_path / "locked/a")
    (tmp_path / "locked").chmod(0o700)


@pytest.fixture
def other_user(tmp_path):
    """Become one whom permissions bind, where this process is root; a context."""

    @contextlib.contextmanager
    def become():
        if os.geteuid() != 0:
            yield
            return
        for folder in (tmp_path, *tmp_path.parents):
            folder.chmod(folder.stat().st_mode | 0o055)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return become


def test_a_list_beside_pictures_is_the_list(tmp_path):
    touch(tmp_path, "v/a.mp4", "cover.jpg")
    (tmp_path / "annotations.csv").write_text("path\nv/a.mp4\n")
    assert ids(tmp_path) == ["v/a"]


def test_csv_with_spans_splits_and_labels(tmp_path):
    touch(tmp_path, "v/a.mp4", "v/b.mp4")
    (tmp_path / "annotations.csv").write_bytes(
        b"\xef\xbb\xbfpath,start_seconds,stop_seconds,split,verb,verb_class,code\r\n"
        b'v/a.mp4,0.5,2,train,"push, left",3,007\r\n'
        b"v/a.mp4,1,2.5,validation,lift,0,008\r\n"
        b'v/b.mp4,,,train,"two\nlines",1,x\r\n'
    )
    table = load_manifest("folder", tmp_path)
    assert table["clip_id"].to_pylist() == ["v/a_0", "v/a_1", "v/b"]
    assert table["video_id"].to_pylist() == ["v/a", "v/a", "v/b"]
    assert table["start_seconds"].to_pylist() == [0.5, 1.0, None]
    assert table["verb"].to_pylist() == ["push, left", "lift", "two\nlines"]
    assert table["verb_class"].to_pylist() == [3, 0, 1]
    assert table["code"].to_pylist() == ["007", "008", "x"]
    assert ids(tmp_path, split="train") == ["v/a_0", "v/b"]
    with pytest.raises(InputError, match="split must be one of train, validation, got 'test'"):
        ids(tmp_path, split="test")


def test_synthetic_reads_its_list(tmp_path):
    touch(tmp_path, "videos/a.mp4")
    (tmp_path / "annotations.csv").write_text("clip_id,path,split,verb,noun\nfirst,videos/a.mp4,train,push,cup\n")
    [row] = load_manifest("synthetic", tmp_path).to_pylist()
    assert row == {
        **dict.fromkeys(["start_seconds", "stop_seconds", "start_frame", "stop_frame", "frame_fps"]),
        "clip_id": "first",
        "video_id": "videos/a",
        "path": "videos/a.mp4",
        "split": "train",
        "verb": "push",
        "noun": "cup",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a CSV"),
        (b"name\na.mp4\n", "needs a column 'path'"),
        (b"path,start_seconds\na.mp4,soon\n", "column start_seconds must hold numbers .*, got 'soon' in line 2"),
        (b"# mine\npath,x,stop_frame\na.mp4,'\n',1\nb.mp4,2,3.5\n", "must be a CSV"),
        (b'# mine\npath,x,stop_frame\na.mp4,"\n",1\nb.mp4,2,3.5\n', "whole numbers, got '3.5' in line 5"),
        (b"path;start_seconds\na.mp4;0,5\n", "with a decimal point, got '0,5' in line 2"),
        (b"path,label_id\na.mp4,1\nb.mp4,push\n", "label_id must be a whole number, got 'push' in line 3"),
        (b"path,start,end\na.mp4,1,2\n", "column 'start' may be seconds or frames"),
        (b"path,Start Seconds,start_seconds\na.mp4,1,2\n", "'Start Seconds' and 'start_seconds' mean the same"),
        (b"path,,x\na.mp4,1,2\n", "column 2 has no name"),
        (b"path\n/elsewhere/a.mp4\n", "line 2: path must lie below the data root"),
        (b"path\nok.mp4\n../a.mp4\n", "line 3: path must lie below the data root"),
        (b"path,x\n,1\n", "line 2: path must not be empty"),
        (b"path,verb\na.mp4\n", "must be a CSV"),
        (b"path\nok.mp4\n\xff\xfe.mp4\n", "must be a text file in UTF-8, but line 3 is not"),
        (b"path,path\na.mp4,b.mp4\n", "column 'path' twice"),
    ],
)
def test_broken_csv_is_refused_with_its_name(tmp_path, content, message):
    (tmp_path / "annotations.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_manifest("folder", tmp_path, require_media=False)
    assert "annotations.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,video_id\na.mp4,v\nb.mp4,v\n", "video_id must stand for one file, got 'v' for 'a.mp4' and 'b.mp4'"),
        (b"path,frame_fps\nd,12\nd,24\n", "frame_fps must be one for a video, got 12.0 and 24.0 for 'd'"),
        (b"path,start_frame\na.mp4,3\n", "clip 'a' must have start_seconds and stop_seconds, got frame numbers alone"),
    ],
)
def test_clips_that_cannot_be_are_refused(tmp_path, content, message):
    (tmp_path / "annotations.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_manifest("folder", tmp_path, require_media=False)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_as_csv_give_a_table_or_an_input_error(fuzz_csv, content):
    fuzz_csv.write_bytes(b"path,start_seconds,split\n" + content)
    with contextlib.suppress(InputError):
        assert "clip_id" in read_annotations(fuzz_csv).column_names


@pytest.fixture(scope="module")
def fuzz_csv(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "annotations.csv"


HEADERS = [
    "path,start_seconds,stop_frame,label_id,mood",
    "Path,Start Seconds,STOP-FRAME,Label ID,mood",
    "video_path,start_sec,stop_frame,label_id,mood",
    "path, start_seconds, stop_frame, label_id, mood",
    "path,start_seconds,stop_frame,label_id,mood,,",
    "\n# of 2024\nsep=,\npath,start_seconds,stop_frame,label_id,mood",
]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_as_programs_write_them(tmp_path, header, separator, end):
    blank = " " if ", " in header else ""
    rows = [["b c.mp4", "0.5", "2.0", "3.0", "fine"], ["d.mp4", "", "", "", "sad; or so, maybe\tnot"]]
    quoted = [f'"{cell}"' if set(cell) & set(",;\t") else cell for row in rows for cell in row]
    text = [header.replace(",", separator).replace(f"sep={separator}", "sep=,")]
    text += [(separator + blank).join(quoted[at : at + 5]) + separator * (2 * header.endswith(",")) for at in (0, 5)]
    whole = end.join([*text, ""]).replace("\n\r\n", end)
    (tmp_path / "annotations.csv").write_text(whole, encoding="utf-8-sig", newline="")
    table = read_annotations(tmp_path / "annotations.csv")
    columns = ["path", "start_seconds", "stop_frame", "label_id", "mood"]
    assert [list(row.values()) for row in table.select(columns).to_pylist()] == [
        ["b c.mp4", 0.5, 2, 3, "fine"],
        ["d.mp4", None, None, None, "sad; or so, maybe\tnot"],
    ]


def test_a_table_in_utf_16_is_read(tmp_path):
    (tmp_path / "annotations.csv").write_text("path\tmood\nTür.mp4\tgut\n", encoding="utf-16")
    assert read_annotations(tmp_path / "annotations.csv")["path"].to_pylist() == ["Tür.mp4"]


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("File,Action", {"label": ["sit", "run"]}),
        ("path,Class Name", {"label": ["sit", "run"]}),
        ("path,label,action", {"label": ["sit", "run"], "action": ["x", "y"]}),
        ("path,verb,class", {"verb": ["sit", "run"], "class": ["x", "y"]}),
    ],
)
def test_a_sole_label_column_may_have_another_name(tmp_path, header, wanted):
    touch(tmp_path, "a.mp4", "b.mp4")
    more = [",x", ",y"] if header.count(",") == 2 else ["", ""]
    (tmp_path / "annotations.csv").write_text(f"{header}\na.mp4,sit{more[0]}\nb.mp4,run{more[1]}\n")
    table = load_manifest("folder", tmp_path)
    assert {name: table[name].to_pylist() for name in wanted} == wanted
    assert "class_name" not in table.column_names


def test_columns_named_like_ours_are_kept_under_another_name_and_said_once(tmp_path):
    (tmp_path / "annotations.csv").write_text("path,status,width,mood\na.mp4,checked,64,good\nb.mp4,new,32,bad\n")
    table = load_manifest("folder", tmp_path, require_media=False)
    assert table["listed_status"].to_pylist() == ["checked", "new"]
    assert table["listed_width"].to_pylist() == [64, 32]
    assert "status" not in table.column_names
    assert [note.split(" of ")[0] for note in notes_of(table)] == ["column status", "column width"]
    assert "kept as listed_status: results have a status of their own" in notes_of(table)[0]


def test_every_column_of_results_is_kept_apart():
    assert set(_RESULT_SCHEMA.names) <= set(RESULT_COLUMNS)


def test_two_files_of_one_stem_are_two_videos(tmp_path):
    (tmp_path / "annotations.csv").write_text("path,label\na.mp4,1\na.mkv,2\nclip.001,3\nclip.002,4\n./a.mp4,5\n")
    table = read_annotations(tmp_path / "annotations.csv")
    assert table["video_id"].to_pylist() == ["a.mp4", "a.mkv", "clip.001", "clip.002", "a.mp4"]
    assert table["clip_id"].to_pylist() == ["a.mp4_0", "a.mkv", "clip.001", "clip.002", "a.mp4_1"]


PIECES = st.sampled_from(["a", "b", "a_0", "a_1", "a.mp4", "clip.001", "x/a", "é", "~", "a~"])
ENDS = st.sampled_from(["", ".mp4", ".mkv", ".MP4", ".tar", ".weird"])
IDS = st.one_of(st.just(""), st.sampled_from(["a", "a_0", "a.mp4", "v"]))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.builds("{}{}".format, PIECES, ENDS), IDS, IDS), min_size=1, max_size=6))
def test_no_id_ever_stands_for_two_files(fuzz_csv, rows):
    """Ids that are made never meet one that is given; an id that is given for two files is refused, naming both."""
    fuzz_csv.write_text("path,clip_id,video_id\n" + "".join(f"{','.join(row)}\n" for row in rows))
    table = read_annotations(fuzz_csv)
    given_paths: dict[str, set[str]] = {}
    for path, _, video_id in rows:
        if video_id:
            given_paths.setdefault(video_id, set()).add(path)
    clips = [clip_id for _, clip_id, _ in rows if clip_id]
    if len(set(clips)) == len(clips) and all(len(paths) == 1 for paths in given_paths.values()):
        validate_manifest(table)
        by_video = dict(zip(table["video_id"].to_pylist(), table["path"].to_pylist(), strict=True))
        assert [by_video[video] for video in table["video_id"].to_pylist()] == [path for path, _, _ in rows]
        assert len(set(table["clip_id"].to_pylist())) == len(rows)
    else:
        with pytest.raises(InputError, match=r"must be unique|must stand for one file, got '.+' for '.+' and '.+'"):
            validate_manifest(table)


@pytest.mark.parametrize(
    ("columns", "fps", "wanted"),
    [
        ("path\nd\nv.mp4\n", None, [(None, None, None, True), (None, None, None, False)]),
        ("path\nd\nv.mp4\n", 12.0, [(None, None, 12.0, None), (None, None, None, None)]),
        ("path,frame_fps\nd,10\n", None, [(None, None, 10.0, None)]),
        ("path,frame_fps\nd,10\n", 12.0, [(None, None, 10.0, None)]),
        ("path,start_frame,stop_frame\nd,1,3\n", 10.0, [(0.1, 0.4, 10.0, None)]),
        ("path,start_frame,stop_frame\nd,1,3\nd,,\n", None, [(1 / 30, 4 / 30, 30.0, True), (None, None, 30.0, True)]),
        ("path,start_frame\nt.tar,1\n", 10.0, [(0.1, None, 10.0, None)]),
        (
            "path,start_frame,start_seconds\nv.mp4,1,2.5\nd,1,\n",
            10.0,
            [(2.5, None, None, None), (0.1, None, 10.0, None)],
        ),
    ],
)
def test_frame_numbers_and_rates_become_times(tmp_path, columns, fps, wanted):
    touch(tmp_path, "d/1.jpg", "d/2.jpg", "d/3.jpg", "v.mp4", "t.tar")
    (tmp_path / "annotations.csv").write_text(columns)
    table = load_manifest("folder", tmp_path, frame_fps=fps)
    names = ("start_seconds", "stop_seconds", "frame_fps", "frame_fps_assumed")
    assert [tuple(row.get(name) for name in names) for row in table.to_pylist()] == wanted
    assert num_assumed_rates(table) == ("frame_fps_assumed" in table.column_names)


def test_a_rate_that_nothing_can_have_is_refused(tmp_path):
    touch(tmp_path, "a.mp4")
    with pytest.raises(InputError, match="frame_fps must be left out, got 12: no clip lies in a folder or tar"):
        load_manifest("folder", tmp_path, frame_fps=12.0)
    touch(tmp_path, "d/1.jpg")
    with pytest.raises(InputError, match="frame_fps must be greater than 0, got nan"):
        load_manifest("folder", tmp_path, frame_fps=float("nan"))
