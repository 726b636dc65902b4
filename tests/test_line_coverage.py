import json
from pathlib import Path

import pytest

import line_coverage


def summary(lines: tuple[int, int], branches: tuple[int, int]) -> dict[str, dict[str, int]]:
    values = (lines[0], lines[1], branches[0], branches[1])
    return {
        "summary": dict(
            zip(("covered_lines", "num_statements", "covered_branches", "num_branches"), values, strict=True)
        )
    }


@pytest.mark.parametrize(("covered", "code", "total"), [(85, 0, "90.0"), (84, 1, "89.5")])
def test_lines_alone_decide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], covered: int, code: int, total: str
) -> None:
    files = {
        "packages/motionbox/src/motionbox/a.py": summary((95, 100), (1, 10)),
        "packages/mofo_train/src/mofo_train/b.py": summary((covered, 100), (0, 0)),
    }
    (tmp_path / "coverage.json").write_text(json.dumps({"files": files}))
    assert line_coverage.main(tmp_path / "coverage.json") == code
    assert capsys.readouterr().out.splitlines() == [
        "motionbox   lines 95.0 %  branches 10.0 %",
        f"mofo_train  lines {covered}.0 %  branches 100.0 %",
        f"both        lines {total} %  branches 10.0 %",
    ]
