import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionbox.errors import InputError
from motionbox.inputs.folder.listed import ListedMedia
from motionbox.inputs.lists.clips import FORMATS, ListedClip, read_clip_list

Clip = tuple[str, int | None, str | None, int | None, int | None]


def clips(path: Path, *options: object) -> list[Clip]:
    """Return (path, label_id, label, first_frame, num_frames) of each line."""
    return [
        (clip.path, clip.label_id, clip.label, clip.first_frame, clip.num_frames)
        for clip in read_clip_list(path, *options)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b.mp4 3\nc.mp4 0\n", [("a/b.mp4", 3, None, None, None), ("c.mp4", 0, None, None, None)]),
        ("drinking (31).mp4 1\n", [("drinking (31).mp4", 1, None, None, None)]),
        ("a.mp4 0 -1\n", [("a.mp4", None, None, None, None)]),
        ("frames/182040 1 58\n", [("frames/182040", None, None, 1, 58)]),
        ("frames/1 0 58\nframes/2 0 9\n", [("frames/1", None, None, 0, 58), ("frames/2", None, None, 0, 9)]),
        ("frames/1 1 20\nframes/1 41 20\n", [("frames/1", None, None, 1, 20), ("frames/1", None, None, 41, 20)]),
        ("frames/1 21 20\nframes/1 41 20\n", [("frames/1", None, None, 21, 20), ("frames/1", None, None, 41, 20)]),
        ("a.mp4 0 -1\nframes/1 41 20\n", [("a.mp4", None, None, None, None), ("frames/1", None, None, 41, 20)]),
        ("dir/one 163 1\r\n\r\ndir/2 9 2\r\n", [("dir/one", 1, None, None, 163), ("dir/2", 2, None, None, 9)]),
        ("78687 38 137\n", [("78687", 137, None, None, 38)]),
        ("78687 38.0 137.0\n", [("78687", 137, None, None, 38)]),
        ("78687 137\n42326 -1\n", [("78687", 137, None, None, None), ("42326", None, None, None, None)]),
        ('/x/7.mp4 "closing something" 5\n', [("/x/7.mp4", 5, "closing something", None, None)]),
        ("/x/7.mp4 closing something 5\n", [("/x/7.mp4", 5, "closing something", None, None)]),
        ('"my videos/a.mp4" 5\n', [("my videos/a.mp4", 5, None, None, None)]),
        ('my videos/a.mp4 "push, left" 5\n', [("my videos/a.mp4", 5, "push, left", None, None)]),
        ('"a ""b"".mp4" 5\n', [('a "b".mp4', 5, None, None, None)]),
        ('5" screen.mp4 3\n', [('5" screen.mp4', 3, None, None, None)]),
        ("\ufeffa.mp4\t4\n", [("a.mp4", 4, None, None, None)]),
        ("my clips/one\t9\t4\n", [("my clips/one", 4, None, None, 9)]),
        ("a.mp4,4\nb b.mp4, 5\n", [("a.mp4", 4, None, None, None), ("b b.mp4", 5, None, None, None)]),
        ("a.mp4;4\nb,b.mp4;5\n", [("a.mp4", 4, None, None, None), ("b,b.mp4", 5, None, None, None)]),
        ("a,b.mp4 4\n", [("a,b.mp4", 4, None, None, None)]),
        ("a.mp4,closing a door\n", [("a.mp4", None, "closing a door", None, None)]),
        ("a.mp4,3,\n", [("a.mp4", 3, None, None, None)]),
        ('a.mp4,"opening, it",6\n', [("a.mp4", 6, "opening, it", None, None)]),
        (
            "100218;Something falling like a feather\n",
            [("100218", None, "Something falling like a feather", None, None)],
        ),
        ("# mine\na.mp4 1\n  # more\n\nb.mp4 2", [("a.mp4", 1, None, None, None), ("b.mp4", 2, None, None, None)]),
        ("Surf/v_01.avi\nSwim/v_02.avi\n", [("Surf/v_01.avi", *[None] * 4), ("Swim/v_02.avi", *[None] * 4)]),
        ("a\x0cb\u2028c.mp4 3\n", [("a\x0cb\u2028c.mp4", 3, None, None, None)]),
        ("a.mp4 1\rb.mp4 2\r", [("a.mp4", 1, None, None, None), ("b.mp4", 2, None, None, None)]),
        ("videos\\a.mp4 1\n", [("videos\\a.mp4", 1, None, None, None)]),
    ],
)
def test_lists_of_every_tool(tmp_path, text, expected):
    (tmp_path / "train.csv").write_text(text, encoding="utf-8", newline="")
    assert clips(tmp_path / "train.csv") == expected


def test_lists_in_utf_16_are_read_where_they_say_so(tmp_path):
    (tmp_path / "train.csv").write_text("Türe.mp4 3\n", encoding="utf-16")
    assert clips(tmp_path / "train.csv") == [("Türe.mp4", 3, None, None, None)]


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    (tmp_path / "train.csv").write_text("# first\n\na.mp4 1\n")
    assert read_clip_list(tmp_path / "train.csv") == [ListedClip("a.mp4", 1, None, None, None, 3)]


@pytest.mark.parametrize(
    ("text", "file_format", "message"),
    [
        ("", "auto", "holds no clip"),
        ("# only\n", "auto", "holds no clip"),
        ("a\n", "auto", "line 1: must be one of `path`, .* which is neither a video's name nor on disk"),
        ("a.mp4 1\nb 1 2\n", "auto", "line 2: must have the same fields as line 1, 'a.mp4 1', got 'b 1 2'"),
        ("a.mp4 1\nb.mp4\n", "auto", "line 2: must have the same fields as line 1"),
        ("a.mp4 one\n", "video", "line 1: video lines must be `path label`, got 'a.mp4 one'"),
        ('a.mp4 "1\n', "auto", "line 1: a quote must be closed"),
        ("a.mp4 1\n", "xml", "format must be one of auto"),
        ("a.mp4 30 2\n", "auto", "line 1: two numbers after a video may be frames, labels or both"),
        ("a 1 2 3\n", "auto", "line 1: must be one of .*several labels for one clip are not supported"),
        ("dir/a 9 2\ndir/b 1 2\n", "auto", "line 2: 'dir/b 1 2' may hold a start or a total; say which with --format"),
        ("dir/a 9 -1\n", "auto", "line 1: 9 may be a start or a number of frames"),
        ("a.mp4 3 9\n", "pretrain", "line 1: 'a.mp4' must have -1 frames .the whole video., got 9"),
        ("dir -1 9\n", "pretrain", "line 1: start must be 0 or more and total_frames 1 or more .*, got -1 and 9"),
        ("dir 0 9\n", "rawframes", "line 1: total_frames must be at least 1, got 0"),
        ("a.mp4 -2\n", "auto", "line 1: label must be 0 or more, or -1 for none, got -2"),
        ("my clips/one 9 4\n", "auto", "line 1: 'my clips/one' does not show where the path ends; put the path in"),
        ("3 a.mp4\n", "auto", "line 1: '3 a.mp4' may be one path, or a label before a path"),
        ("closing,a.mp4,3\n", "auto", "line 1: 'closing,a.mp4' may be one path, or a label before a path"),
        ("a.mp4 b.mp4 3\n", "auto", "line 1: 'a.mp4 b.mp4' looks like more than one path"),
        ("a.mp4 5,3\n", "auto", "line 1: "),
        ("clip,,3\n", "auto", "line 1: "),
        ("v/img_00001.jpg 3\n", "auto", "line 1: path must be a video or a folder of frames, got the picture"),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d\n",
            "auto",
            "line 1: .*where the path ends",
        ),
        ("<!DOCTYPE html>\n<html>\n", "auto", "line 1: .*where the path ends"),
        ('{"id": "1", "label": "push"}\n', "auto", "line 1: "),
        ("1j20qq1JyX4,0902,0.002,0.118,0.977,1.000,12,0\n", "auto", "line 1: "),
    ],
)
def test_what_is_not_certain_is_refused_with_its_line(tmp_path, text, file_format, message):
    (tmp_path / "l.txt").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_clip_list(tmp_path / "l.txt", file_format)
    assert "\n" not in str(caught.value)


def test_a_known_format_settles_what_the_line_leaves_open(tmp_path):
    (tmp_path / "l.txt").write_text("my clip 1 58 3\n")
    with pytest.raises(InputError, match="line 1"):
        read_clip_list(tmp_path / "l.txt")
    (tmp_path / "l.txt").write_text("a.mp4 30 2\n")
    assert clips(tmp_path / "l.txt", "rawframes") == [("a.mp4", 2, None, None, 30)]
    (tmp_path / "l.txt").write_text("dir/a 41 20\n")
    assert clips(tmp_path / "l.txt", "pretrain") == [("dir/a", None, None, 41, 20)]
    assert clips(tmp_path / "l.txt", "rawframes") == [("dir/a", 20, None, None, 41)]


def frames(root: Path, name: str, first: int, count: int) -> None:
    (root / name).mkdir(parents=True)
    for number in range(first, first + count):
        (root / name / f"img_{number:05}.jpg").touch()


def test_the_disk_settles_where_a_path_ends_and_what_numbers_mean(tmp_path):
    frames(tmp_path, "my clip 1", 1, 12)
    frames(tmp_path, "dir/b", 1, 3)
    media = ListedMedia(tmp_path)
    text = tmp_path / "l.txt"
    text.write_text("my clip 1 12 7\ndir/b 3 0\n")
    assert clips(text, "auto", media) == [("my clip 1", 7, None, None, 12), ("dir/b", 0, None, None, 3)]
    text.write_text("dir/b 9 2\n")
    with pytest.raises(InputError, match="line 1: 9 is not the 3 frames on disk; say which with --format"):
        read_clip_list(text, "auto", media)
    (tmp_path / "3 a.mp4").touch()
    text.write_text("3 a.mp4\n")
    assert clips(text, "auto", ListedMedia(tmp_path)) == [("3 a.mp4", None, None, None, None)]
    (tmp_path / "3 a.mp4 1").touch()
    text.write_text("3 a.mp4 1\n")
    with pytest.raises(InputError, match=r"line 1: '3 a\.mp4' and '3 a\.mp4 1' are both there"):
        read_clip_list(text, "auto", ListedMedia(tmp_path))


def test_a_comment_that_is_also_a_file_is_refused(tmp_path):
    (tmp_path / "#1.mp4").touch()
    (tmp_path / "l.txt").write_text("a.mp4 0\n#1.mp4 3\n")
    assert len(read_clip_list(tmp_path / "l.txt")) == 1
    with pytest.raises(InputError, match=r"line 2 may be a comment or a clip, '#1\.mp4 3' is there; quote it"):
        read_clip_list(tmp_path / "l.txt", "auto", ListedMedia(tmp_path))
    (tmp_path / "l.txt").write_text('a.mp4 0\n"#1.mp4" 3\n')
    assert clips(tmp_path / "l.txt", "auto", ListedMedia(tmp_path))[1][0] == "#1.mp4"


def test_pickles_missing_files_and_other_encodings_are_refused(tmp_path):
    (tmp_path / "l.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match="never loaded"):
        read_clip_list(tmp_path / "l.pkl")
    with pytest.raises(InputError, match=r"none\.txt: cannot be read: No such file"):
        read_clip_list(tmp_path / "none.txt")
    (tmp_path / "l.txt").write_bytes(b"a.mp4 1\nT\xfcre.mp4 2\n")
    with pytest.raises(InputError, match=r"must be a text file in UTF-8, but line 2 is not; save it as UTF-8"):
        read_clip_list(tmp_path / "l.txt")


@pytest.fixture(scope="module")
def fuzz_list(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "list.txt"


@settings(max_examples=150)
@given(st.binary(max_size=120), st.sampled_from(FORMATS))
def test_any_bytes_give_clips_or_an_input_error(fuzz_list, content, file_format):
    fuzz_list.write_bytes(content)
    with contextlib.suppress(InputError):
        assert read_clip_list(fuzz_list, file_format)


WORDS = (
    st.text(st.sampled_from("ab7 .,;()'#-"), min_size=1, max_size=8).map(lambda text: text.strip(" ,;")).filter(bool)
)
VIDEOS = st.builds("{}{}".format, WORDS, st.sampled_from([".mp4", ".WEBM", ".avi"]))
# without a suffix, nothing but the separator shows where a folder's path ends
FOLDERS = st.builds("{}/{}".format, WORDS, WORDS).filter(lambda path: not re.search(r"[,;]| -?[0-9]+$", path))
NAMES = st.sampled_from(["push", "closing a door", "push, left", 'say "no"', "into; out"])
NUMBERS = st.integers(0, 400)
SEPARATORS = st.sampled_from([" ", "\t", ",", ", ", ";", "  "])
LINES = {
    "paths": st.tuples(VIDEOS),
    "video": st.tuples(st.one_of(VIDEOS, FOLDERS), NUMBERS),
    "names": st.tuples(VIDEOS, NAMES),
    "pretrain": st.tuples(FOLDERS, st.integers(0, 1), st.integers(2, 99)),
    "rawframes": st.tuples(FOLDERS, st.integers(2, 99), NUMBERS),
    "mofo": st.tuples(VIDEOS, NAMES, NUMBERS),
}


def quoted(field: object) -> str:
    return '"' + str(field).replace('"', '""') + '"'


def intended(kind: str, line: tuple) -> Clip:
    numbers = line[1:] if kind in ("pretrain", "rawframes") else (None, None)
    label_id = line[-1] if kind in ("video", "rawframes", "mofo") else None
    name = line[1] if kind in ("names", "mofo") else None
    return line[0], label_id, name, *(numbers if kind == "pretrain" else (None, numbers[0]))


def outcome(path: Path) -> list[Clip] | str:
    """Return the clips of a list; what refuses it names the line."""
    try:
        return clips(path)
    except InputError as error:
        return "refused" if "line " in str(error) or "holds no clip" in str(error) else str(error)


@settings(max_examples=250)
@given(st.data(), st.sampled_from(sorted(LINES)), SEPARATORS, st.booleans())
def test_a_list_is_read_as_it_was_meant_or_refused_with_its_line(fuzz_list, data, kind, separator, quotes):
    """Whatever the paths hold; with every field of text in quotes nothing is left to refuse."""
    lines = data.draw(st.lists(LINES[kind], min_size=1, max_size=3, unique_by=lambda line: line[0]))
    text = [separator.join(quoted(f) if quotes and isinstance(f, str) else str(f) for f in line) for line in lines]
    fuzz_list.write_text("\n".join(text), encoding="utf-8")
    commented = [] if quotes else [line for line, shown in zip(lines, text, strict=True) if shown.startswith("#")]
    wanted = [intended(kind, line) for line in lines if line not in commented]
    assert outcome(fuzz_list) in ([wanted] if quotes else [wanted, "refused"])
