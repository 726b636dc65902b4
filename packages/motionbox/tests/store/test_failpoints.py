import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from motionbox.storage import failpoints
from motionbox.storage.failpoints import arm, failpoint


@pytest.fixture(autouse=True)
def disarm():
    yield
    arm(None)


def test_the_nth_passage_fails() -> None:
    arm("commit.write:3:eio")
    failpoint("commit.write")
    failpoint("attempt.write")
    failpoint("commit.write")
    with pytest.raises(OSError, match=r"planted at commit\.write") as caught:
        failpoint("commit.write")
    assert caught.value.errno == errno.EIO
    failpoint("commit.write")


def test_only_the_first_process_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTIONBOX_FAULT_ONCE", str(tmp_path / "struck"))
    for _ in range(2):
        arm("commit.write:1:enospc")
        if (tmp_path / "struck").exists():
            failpoint("commit.write")
        else:
            with pytest.raises(OSError, match="No space left"):
                failpoint("commit.write")


@pytest.mark.parametrize("value", ["commit.write", "nowhere:1:kill", "commit.write:x:kill", "commit.write:1:smoke"])
def test_a_misspelt_fault_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="MOTIONBOX_FAULT"):
        arm(value)


def test_unset_it_does_nothing() -> None:
    assert failpoints._armed is None
    for point in failpoints.POINTS:
        failpoint(point)


def test_kill_kills(tmp_path: Path) -> None:
    environment = {**os.environ, "MOTIONBOX_FAULT": "run.write:1:kill", "PYTHONPATH": ":".join(sys.path)}
    code = "from motionbox.storage.failpoints import failpoint; failpoint('run.write')"
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -9
