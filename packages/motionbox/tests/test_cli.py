"""The command line as a user meets it: help, versions, and errors of one line."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from motionbox import __version__
from motionbox.cli import COMMANDS, EXTRAS


def run_cli(*arguments: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `motionbox` in a process of its own, in which the modules `without` cannot be imported."""
    script = textwrap.dedent(f"""
        import sys
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {set(without)!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Absent())
        from motionbox.cli import main
        main({list(arguments)!r})
    """)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)


def test_version_and_help() -> None:
    assert run_cli("--version").stdout.strip() == f"motionbox, version {__version__}"
    listed = run_cli("--help").stdout
    assert all(f"  {name} " in listed for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    result = run_cli("--help", without=(*EXTRAS, "numpy", "pyarrow", "pydantic", "zarr"))
    assert result.returncode == 0
    assert "extract" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = run_cli(name, "--help", without=("cv2", "numba", "ray", "torch"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"Usage: motionbox {name}")


@pytest.mark.parametrize(("command", "absent"), [("synth", "cv2"), ("report", "rich"), ("bench", "numba")])
def test_a_missing_extra_is_one_line_with_the_remedy(command: str, absent: str, tmp_path: Path) -> None:
    arguments = {"synth": ["-o", str(tmp_path / "data")], "report": [str(tmp_path), "-o", "page.html"], "bench": []}
    result = run_cli(command, *arguments[command], without=(absent,))
    assert result.returncode == 2
    assert result.stderr == (
        f"motionbox: error: {absent} is not installed, and this command needs it: pip install 'motionbox[extract]'\n"
    )


def test_a_missing_module_of_no_extra_is_not_hidden(tmp_path: Path) -> None:
    result = run_cli("synth", "-o", str(tmp_path / "data"), without=("numpy",))
    assert result.returncode == 1
    assert "ModuleNotFoundError" in result.stderr


def test_an_unknown_command_and_option_exit_2() -> None:
    assert run_cli("extrakt").returncode == 2
    assert run_cli("extract", "--no-such-option").returncode == 2


def test_a_disk_that_fails_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    result = run_cli("synth", "-o", str(tmp_path / "taken" / "data"))
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert str(tmp_path / "taken") in result.stderr


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_are_finite(value: str) -> None:
    """Click takes `nan` for a number above 0."""
    result = run_cli("extract", f"--frame-fps={value}")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "for '--frame-fps': " in result.stderr
