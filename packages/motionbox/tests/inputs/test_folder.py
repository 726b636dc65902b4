import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionbox.errors import InputError
from motionbox.inputs.folder import read_annotations
from motionbox.inputs.manifest import load_manifest


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


def test_name_that_is_not_utf8_is_refused_by_name(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.mp4")).touch()
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    with pytest.raises(InputError, match=r"must be UTF-8, got 'a\\\\xff.mp4'; rename"):
        ids(tmp_path)


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
        (b"path,start_seconds\na.mp4,soon\n", "column start_seconds must hold numbers"),
        (b"path,verb\na.mp4\n", "must be a CSV"),
        (b"path\n\xff\xfe.mp4\n", "must be a CSV table in UTF-8"),
        (b"path,path\na.mp4,b.mp4\n", "column 'path' twice"),
    ],
)
def test_broken_csv_is_refused_with_its_name(tmp_path, content, message):
    (tmp_path / "annotations.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_manifest("folder", tmp_path, require_media=False)
    assert "annotations.csv" in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_as_csv_give_a_table_or_an_input_error(fuzz_csv, content):
    fuzz_csv.write_bytes(b"path,start_seconds,split\n" + content)
    with contextlib.suppress(InputError):
        assert "clip_id" in read_annotations(fuzz_csv).column_names


@pytest.fixture(scope="module")
def fuzz_csv(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "annotations.csv"
