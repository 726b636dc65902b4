"""Every planted bug of the six functions that everything rests on is caught (`make test-planted`)."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class PlantedBug:
    """One row of `planted_bugs.toml`, which says what its fields mean."""

    function: str
    name: str
    file: str
    text: str
    replacement: str
    test: str

    def __str__(self) -> str:
        return f"{self.function}: {self.name}"


TABLE = Path(__file__).with_name("planted_bugs.toml")
BUGS = tuple(PlantedBug(**row) for row in tomllib.loads(TABLE.read_text(encoding="utf-8"))["bug"])
PACKAGES = Path(__file__).resolve().parents[1] / "packages"
_SOURCES = ("motionbox/src", "mofo_train/src")
_TESTS_FAILED = 1  # pytest's exit code; collection errors and missing tests have others


def _run(tests: list[str], packages: Path) -> subprocess.CompletedProcess[str]:
    """Run tests of this checkout on the packages below another folder."""
    paths = [str(packages / source) for source in _SOURCES]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-o", f"pythonpath={' '.join(paths)} tests", *(str(PACKAGES / test) for test in tests)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    return subprocess.run(
        command, cwd=PACKAGES.parent, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Copy the source of both packages."""
    for source in _SOURCES:
        shutil.copytree(PACKAGES / source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_the_table_is_of_today(bug: PlantedBug) -> None:
    assert (PACKAGES / bug.file).read_text(encoding="utf-8").count(bug.text) == 1
    file, _, name = bug.test.partition("::")
    assert re.search(rf"^def {name}\(", (PACKAGES / file).read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_every_function_has_five_bugs_of_different_names() -> None:
    assert len({str(bug) for bug in BUGS}) == len(BUGS)
    assert all(count >= 5 for count in Counter(bug.function for bug in BUGS).values())


@pytest.mark.planted
def test_without_a_bug_the_named_tests_pass(packages: Path) -> None:
    done = _run(sorted({bug.test for bug in BUGS}), packages)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.planted
@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_planted_bug_is_caught(bug: PlantedBug, packages: Path) -> None:
    file = packages / bug.file
    file.write_text(file.read_text(encoding="utf-8").replace(bug.text, bug.replacement), encoding="utf-8")
    done = _run([bug.test], packages)
    assert done.returncode == _TESTS_FAILED, f"{bug.test} did not see it:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
