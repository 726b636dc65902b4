"""Names that are no UTF-8, of the data root and of frame files: in messages, in the store, on the report's page."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from motionbox.cli import main
from motionbox.store import open_store
from motionbox.store.care.verify import verify_store


def motionbox(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


@pytest.fixture
def odd_root(tmp_path: Path) -> Path:
    """A data set below a folder in Latin-1, with a frame folder whose last file is broken and named in Latin-1."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9j\xe0"))
    try:
        (root / "frames").mkdir(parents=True)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    base = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 80, (64, 64), np.uint8), (5, 5), 0)
    for number in range(6):
        picture = base.copy()
        picture[20:36, 4 + 4 * number : 20 + 4 * number] = 200
        (root / "frames" / f"{number}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    Path(os.fsdecode(os.fsencode(root) + b"/frames/\xe9t\xe9_9.png")).write_bytes(b"broken")
    (root / "garbage.mp4").write_bytes(b"garbage" * 100)
    return root


def test_names_that_are_no_utf8_are_rows_of_a_store_like_any(odd_root: Path, tmp_path: Path, capsys) -> None:
    store = tmp_path / "store"
    arguments = ["extract", "--data-root", odd_root, "--store", store, "--flow", "dis", "--workers", "0"]
    assert motionbox(*arguments) == 3
    rows = {row["clip_id"]: row for row in open_store(store).clips().to_pylist()}
    assert (rows["frames"]["status"], rows["frames"]["num_frames"]) == ("partial", 6)
    assert r"frame \xe9t\xe9_9.png is no intact JPEG or PNG" in rows["frames"]["reason"]
    assert r"d\xe9j\xe0/garbage.mp4" in rows["garbage"]["reason"]
    assert motionbox(*arguments) == 3  # the same run: its folder is known by name
    assert "store" in capsys.readouterr().out
    assert motionbox("report", store, "-o", tmp_path / "page.html") == 0
    assert [check.problem for check in verify_store(store) if check.problem] == []
    assert len(list((store / "runs").iterdir())) == 1
