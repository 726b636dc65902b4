import contextlib
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from motionbox.commands.exchange import import_list as command
from motionbox.errors import InputError
from motionbox.inputs.lists import ListedClip, read_clip_list, relative_path
from motionbox.inputs.manifest import load_manifest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b.mp4 3\nc.mp4 0\n", [ListedClip("a/b.mp4", 3, None, None), ListedClip("c.mp4", 0, None, None)]),
        ("a.mp4 0 -1\n", [ListedClip("a.mp4", None, None, None)]),
        (
            "dir/one 163 1\r\n\r\ndir/two 9 2\r\n",
            [ListedClip("dir/one", 1, None, 163), ListedClip("dir/two", 2, None, 9)],
        ),
        ('/x/7.mp4 "closing something" 5\n', [ListedClip("/x/7.mp4", 5, "closing something", None)]),
        ('"my videos/a.mp4" 5\n', [ListedClip("my videos/a.mp4", 5, None, None)]),
        ("\ufeffa.mp4\t4\n", [ListedClip("a.mp4", 4, None, None)]),
        ("a.mp4,4\nb b.mp4,5\n", [ListedClip("a.mp4", 4, None, None), ListedClip("b b.mp4", 5, None, None)]),
    ],
)
def test_lists_of_every_tool(tmp_path, text, expected):
    (tmp_path / "train.csv").write_bytes(text.encode())
    assert read_clip_list(tmp_path / "train.csv") == expected


@pytest.mark.parametrize(
    ("text", "file_format", "message"),
    [
        ("", "auto", "holds no clip"),
        ("a.mp4\n", "auto", "lines must have 2 fields or 3, all alike, got 1 in line 1"),
        ("a.mp4 1\nb 1 2\n", "auto", "all alike, got 3 in line 2"),
        ("a.mp4 one\n", "video", "field 2 of video lines must be a whole number, got 'one' in line 1"),
        ("a.mp4 1 2\n", "video", "video lines must have 2 fields, got 3 in line 1"),
        ('a.mp4 "1\n', "auto", "must be a list of fields"),
        ("a.mp4 1\n", "xml", "format must be one of auto"),
    ],
)
def test_broken_lists_are_refused_with_the_line(tmp_path, text, file_format, message):
    (tmp_path / "l.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_clip_list(tmp_path / "l.txt", file_format)


def test_pickles_and_missing_files_are_refused(tmp_path):
    (tmp_path / "l.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match="never loaded"):
        read_clip_list(tmp_path / "l.pkl")
    with pytest.raises(InputError, match="must be a text file"):
        read_clip_list(tmp_path / "none.txt")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_give_clips_or_an_input_error(fuzz_list, content):
    fuzz_list.write_bytes(content)
    with contextlib.suppress(InputError):
        assert read_clip_list(fuzz_list)


@pytest.fixture(scope="module")
def fuzz_list(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "list.txt"


def test_paths_become_relative_to_the_root(tmp_path):
    assert relative_path(str(tmp_path / "a/b.mp4"), tmp_path) == "a/b.mp4"
    assert relative_path("a/./b.mp4", tmp_path) == "a/b.mp4"
    for path in ("/elsewhere/b.mp4", "../b.mp4", str(tmp_path / "../b.mp4")):
        with pytest.raises(InputError, match="path must lie below the data root"):
            relative_path(path, tmp_path)


def test_imported_lists_are_a_folder_data_set(tmp_path: Path):
    root = tmp_path / "data"
    (root / "v").mkdir(parents=True)
    for name in ("1.mp4", "2.mp4", "3.mp4"):
        (root / "v" / name).touch()
    (tmp_path / "train.csv").write_text(f'{root}/v/1.mp4 "closing something" 5\n{root}/v/2.mp4 "opening, it" 6\n')
    (tmp_path / "val.csv").write_text(f'{root}/v/3.mp4 "closing something" 5\n')
    arguments = [str(tmp_path / "train.csv"), str(tmp_path / "val.csv"), "--data-root", str(root)]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert "3 clips of 2 lists" in result.output
    table = load_manifest("folder", root)
    assert table["clip_id"].to_pylist() == ["v/1", "v/2", "v/3"]
    assert table["split"].to_pylist() == ["train", "train", "val"]
    assert table["label"].to_pylist() == [5, 6, 5]
    assert table["label_name"].to_pylist()[1] == "opening, it"
    again = CliRunner().invoke(command, arguments)
    assert isinstance(again.exception, InputError)
    assert (
        CliRunner().invoke(command, [*arguments, "--force", "--split", "all"], standalone_mode=False).return_value == 0
    )
    assert set(load_manifest("folder", root)["split"].to_pylist()) == {"all"}
