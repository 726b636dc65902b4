import re

import av
import pytest
from click.testing import CliRunner

from motionbox.commands import demo


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    arguments = ["--out", str(out), "--num-clips", "2", "--flow", "dis", "--workers", "0", "--preset", "paper"]
    result = CliRunner().invoke(demo.demo, arguments)
    assert result.exit_code == 0, result.output
    return out, arguments, result.output


def test_the_demo_scores_boxes_beside_those_that_look_at_nothing(finished):
    _, _, output = finished
    rows = {line.split("│")[1].strip(): line.split("│") for line in output.splitlines() if line.startswith("│")}
    assert list(rows) == ["full frame", "centre half", "paper"]
    for row in rows.values():
        assert row[2].strip() == "2"
        means = [float(re.match(r" *([\d.]+) \(", cell).group(1)) for cell in row[5:7]]
        assert all(0 < mean <= 1 for mean in means)
    assert float(rows["paper"][4]) > 0


def test_the_demo_draws_what_it_extracted(finished):
    out, _, _ = finished
    with av.open(str(out / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 48
    for name in ("still.png", "contact_sheet.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_a_second_demo_uses_what_is_there(finished):
    _, arguments, _ = finished
    result = CliRunner().invoke(demo.demo, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.count("there already") == 2
