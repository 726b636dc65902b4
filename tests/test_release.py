"""One version for both packages, wherever it stands."""

import re
import tomllib
from pathlib import Path

import mofo_train
import motionbox

ROOT = Path(__file__).resolve().parents[1]


def test_one_version_for_both_packages() -> None:
    assert mofo_train.__version__ == motionbox.__version__
    project = tomllib.loads((ROOT / "packages/mofo_train/pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = [entry for entry in project["dependencies"] if entry.startswith("motionbox")]
    assert pins == [f"motionbox=={motionbox.__version__}"]
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited is not None
    assert cited[1] == motionbox.__version__
    assert f"## {motionbox.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
