"""Files that appear whole or not at all, whatever stands where they belong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from motionbox.errors import InputError
from motionbox.output import whole_file


def write(path: Path, text: str = "new") -> None:
    with whole_file(path) as unfinished:
        unfinished.write_text(text)


def test_a_file_and_its_folders_are_made(tmp_path: Path) -> None:
    write(tmp_path / "a/b c/ü.csv")
    assert (tmp_path / "a/b c/ü.csv").read_text() == "new"
    assert [path.name for path in (tmp_path / "a/b c").iterdir()] == ["ü.csv"]


@pytest.mark.parametrize("error", [KeyError("a"), OSError(28, os.strerror(28))])
def test_what_fails_leaves_the_old_file_alone(tmp_path: Path, error: Exception) -> None:
    def fail() -> None:
        with whole_file(tmp_path / "a.csv") as unfinished:
            unfinished.write_text("half")
            raise error

    (tmp_path / "a.csv").write_text("old")
    said = r"cannot write .*a\.csv: No space left on device; choose another path"
    with pytest.raises((KeyError, InputError), match="'a'" if isinstance(error, KeyError) else said):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.csv", "old")]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/a.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("there/a.csv")
    write(tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "there/a.csv").read_text() == "new"
    (tmp_path / "there/a.csv").unlink()
    write(tmp_path / "link.csv", "again")
    assert (tmp_path / "there/a.csv").read_text() == "again"


def test_what_is_no_file_is_refused_and_stays(tmp_path: Path) -> None:
    """As root, `-o /dev/stdout` or `/dev/null` would leave a plain file in the device's place."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "stdout").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    before = {path.name: path.lstat().st_ino for path in tmp_path.iterdir()}
    for name in before:
        with pytest.raises(InputError, match=f"cannot write .*{name}: there is something that is no file"):
            write(tmp_path / name)
    assert {path.name: path.lstat().st_ino for path in tmp_path.iterdir()} == before
