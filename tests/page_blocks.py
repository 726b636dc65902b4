"""The fenced code blocks of a page, and a place to run them in."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("packages/motionbox/src", "packages/mofo_train/src")


@dataclass(frozen=True)
class Block:
    """A fenced block: language, code, and the line on which it begins."""

    language: str
    code: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(match[1], match[2], text[: match.start()].count("\n") + 1)
        for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    ]


def run(arguments: Sequence[str], folder: Path, sources: Path = ROOT) -> str:
    """Run a program in a folder with the packages of `sources`; fail with what it said."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(str(sources / part) for part in SOURCES),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{arguments[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
