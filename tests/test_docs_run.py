"""README and docs/ are run as printed: their `bash` and `python` blocks, page by page in an empty folder."""

import re
import sys
from itertools import takewhile
from pathlib import Path

import pytest

from page_blocks import ROOT, Block, blocks_of, run

FOLLOWED_ELSEWHERE = ROOT / "docs/extend.md"  # test_extending.py
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if page != FOLLOWED_ELSEWHERE]
RUN = {page: [block for block in blocks_of(page) if block.language in ("bash", "python")] for page in PAGES}


def is_quick(block: Block) -> bool:
    return not block.code.startswith("# takes a minute")


QUICK = {page: list(takewhile(is_quick, blocks)) for page, blocks in RUN.items()}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def run_blocks(blocks: list[Block], folder: Path) -> None:
    for block in blocks:
        program = ["bash", "-euc"] if block.language == "bash" else [sys.executable, "-c"]
        run([*program, block.code], folder)


@pytest.mark.parametrize("page", [page for page in PAGES if QUICK[page]], ids=name_of)
def test_page_runs_as_printed(page: Path, tmp_path: Path) -> None:
    run_blocks(QUICK[page], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if len(QUICK[page]) < len(RUN[page])], ids=name_of)
def test_whole_page_runs_as_printed(page: Path, tmp_path: Path) -> None:
    run_blocks(RUN[page], tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_of_commands_say_whether_they_are_run(page: Path) -> None:
    unsaid = [
        f"{name_of(page)}:{block.line}"
        for block in blocks_of(page)
        if block.language == "" and re.search(r"^(\$ )?(motionbox|mofo-train|torchrun|make) ", block.code, re.MULTILINE)
    ]
    assert unsaid == []


def test_the_quick_start_is_run() -> None:
    page = ROOT / "docs/try-it.md"
    assert len(QUICK[page]) >= 4
    assert len(RUN[page]) > len(QUICK[page])


def test_a_command_that_fails_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="No such option"):
        run_blocks([Block("bash", "motionbox status --colour red\ntrue\n", 1)], tmp_path)
