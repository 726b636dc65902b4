"""docs/extend.md, followed to the letter in a copy of the sources."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from page_blocks import ROOT, SOURCES, Block, blocks_of, run

PAGE = ROOT / "docs/extend.md"
BLOCKS = blocks_of(PAGE)


def place_of(block: Block) -> re.Match[str] | None:
    return re.match(r"# (packages/\S+?)(, at the end)?\n", block.code)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    for part in SOURCES:
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    for block in BLOCKS:
        place = place_of(block)
        if place is not None:
            path, code = root / place[1], block.code[place.end() :]
            assert path.exists() == bool(place[2]), f"{PAGE}:{block.line}: {place[1]}"
            path.write_text(path.read_text(encoding="utf-8") + "\n\n" + code if place[2] else code, encoding="utf-8")
    return root


def test_the_commands_work(extended: Path, tmp_path: Path) -> None:
    commands = [block.code for block in BLOCKS if block.language == "bash"]
    assert len(commands) == 2
    said = run(["bash", "-ec", "".join(commands)], tmp_path, extended)
    assert said.count(": 2 ok, 0 partial") == 2


def test_the_python_works(extended: Path, tmp_path: Path) -> None:
    tries = [block.code for block in BLOCKS if block.language == "python" and place_of(block) is None]
    assert len(tries) == 3
    assert all("assert" in code for code in tries)
    run([sys.executable, "-W", "error::DeprecationWarning", "-c", "".join(tries)], tmp_path, extended)
