"""Print line and branch coverage of both packages from coverage.json; exit with 1 below the limit for lines.

    coverage json && python tests/line_coverage.py coverage.json

(coverage.py's own `fail_under` is for lines and branches together.)
"""

import json
import sys
from collections import Counter
from pathlib import Path

MIN_LINE_PERCENT = 90.0
_KEYS = ("covered_lines", "num_statements", "covered_branches", "num_branches")


def main(path: Path) -> int:
    """Print one line per package and one for both; returns the exit code."""
    files = json.loads(path.read_text(encoding="utf-8"))["files"]
    totals: dict[str, Counter[str]] = {"motionbox": Counter(), "mofo_train": Counter(), "both": Counter()}
    for name, content in files.items():
        package = "mofo_train" if "mofo_train" in Path(name).parts else "motionbox"
        for key in _KEYS:
            totals[package][key] += content["summary"][key]
            totals["both"][key] += content["summary"][key]
    for package, counts in totals.items():
        lines, branches = percent(counts, *_KEYS[:2]), percent(counts, *_KEYS[2:])
        sys.stdout.write(f"{package:<10}  lines {lines:.1f} %  branches {branches:.1f} %\n")
    if percent(totals["both"], *_KEYS[:2]) < MIN_LINE_PERCENT:
        sys.stderr.write(f"line coverage must be at least {MIN_LINE_PERCENT:.0f} %\n")
        return 1
    return 0


def percent(counts: Counter[str], part: str, whole: str) -> float:
    """Return a share in percent; 100 of nothing."""
    return 100 * counts[part] / counts[whole] if counts[whole] else 100.0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
