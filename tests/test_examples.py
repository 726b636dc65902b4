"""examples/ and the cells of docs/tour.ipynb run as they stand, and say what they should."""

import json
import re
import sys
from pathlib import Path

import pytest

from page_blocks import ROOT, run

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    motionbox = [sys.executable, "-m", "motionbox"]
    run([*motionbox, "synth", "-o", "data/synthetic", "--num-clips", "8"], folder)
    run([*motionbox, "extract", "--dataset", "synthetic", "--flow", "dis", "--clips", "--workers", "0"], folder)
    return folder / "stores/synthetic"


def example(name: str, folder: Path, *arguments: str) -> str:
    return run([sys.executable, str(EXAMPLES / name), *arguments], folder)


def test_boxes_in_memory(tmp_path: Path) -> None:
    said = example("boxes_in_memory.py", tmp_path)
    cover = re.search(r"(\d+) boxes, .*areas cover (\d+)%", said)
    assert cover is not None
    assert int(cover[1]) >= 24
    assert 0 < int(cover[2]) < 100


def test_my_training_loop(store: Path, tmp_path: Path) -> None:
    lines = example("my_training_loop.py", tmp_path, str(store)).splitlines()
    assert len(lines) == 2
    # 14 of 16 tubes: round(0.9 * 16)
    assert all(re.fullmatch(r"4 clips, 88% hidden, loss [01]\.\d+", line) for line in lines), lines


def test_pooling_on_my_backbone(tmp_path: Path) -> None:
    assert "logits (2, 10)" in example("pooling_on_my_backbone.py", tmp_path)


def test_the_tour_runs(tmp_path: Path) -> None:
    notebook = json.loads((ROOT / "docs/tour.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    lines = [re.sub(r"^!(.*)$", r"_shell(r'''\1''')", line) for line in "\n".join(cells).splitlines()]
    shell = (
        "import subprocess, matplotlib\nmatplotlib.use('agg')\n"
        "def _shell(line): subprocess.run(line, shell=True, check=True)"
    )
    run([sys.executable, "-c", "\n".join([shell, *lines])], tmp_path)
    assert (tmp_path / "stores/tour").is_dir()
