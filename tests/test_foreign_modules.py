"""Files beside the videos or in the working folder that bear the names of modules are never run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from odd_videos import plain

NAMES = (
    *("cv2", "queue", "numpy", "av", "ray", "torch", "pyarrow", "zarr", "click", "motionbox", "mofo_train"),
    *("selectors", "socket", "pickle", "struct", "signal", "random", "logging", "sitecustomize", "usercustomize"),
)
FOREIGN = "import os\nos.write(2, b'a file of the working folder was run: ' + __file__.encode())\nos._exit(99)\n"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one video and with files that bear the names of modules."""
    folder = tmp_path_factory.mktemp("videos")
    plain(folder / "a.mp4", "libx264")
    for name in NAMES:
        (folder / f"{name}.py").write_text(FOREIGN)
    return folder


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scripts that start the commands as an installation's do."""
    folder = tmp_path_factory.mktemp("bin")
    for package in ("motionbox", "mofo_train"):
        (folder / package).write_text(f"from {package}.cli import main\n\nmain()\n")
    return folder


def run(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=own | environment, capture_output=True, text=True, check=False
    )


def test_the_planted_files_would_be_run(videos: Path) -> None:
    assert run("-c", "import queue", cwd=videos).returncode == 99


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_extraction_runs_no_file_of_the_working_folder(
    videos: Path, program: Path, tmp_path: Path, executor: str
) -> None:
    options = ["--store", tmp_path / "store", "--flow", "dis", "--executor", executor, "--workers", "1"]
    done = run(program / "motionbox", "extract", "--data-root", ".", *options, cwd=videos)
    assert (done.returncode, done.stderr.count("was run")) == (0, 0), done.stderr
    assert "1 ok" in done.stdout


def test_the_folder_of_videos_is_no_better(videos: Path, program: Path, tmp_path: Path) -> None:
    options = ["--store", tmp_path / "store", "--flow", "dis", "--executor", "serial", "--workers", "0"]
    done = run(program / "motionbox", "extract", "--data-root", videos, *options, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("was run")) == (0, 0), done.stderr


def test_python_m_imports_nothing_from_where_it_is_run(videos: Path, tmp_path: Path) -> None:
    """The package itself is the exception: Python looks it up in the working folder before any code of ours runs."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in set(NAMES) - {"motionbox", "mofo_train"}:
        (folder / f"{name}.py").write_text(FOREIGN)
    options = ["--store", tmp_path / "store", "--flow", "dis", "--executor", "serial"]
    done = run("-m", "motionbox", "extract", "--data-root", videos, *options, cwd=folder)
    assert (done.returncode, done.stderr.count("was run")) == (0, 0), done.stderr
    done = run("-m", "mofo_train", "table1", "--help", cwd=folder)
    assert (done.returncode, done.stderr.count("was run")) == (0, 0), done.stderr


GENERATE = """
from motionbox.synthetic.set_folder import draw_all
if __name__ == "__main__":
    print(list(draw_all(len, ["work"] * 8, 2)))
"""
LOAD = """
from torch.utils.data import BatchSampler, SequentialSampler
from mofo_train.data.loader import create_worker_loader
class Numbers(list):
    def read_ahead(self, batch, *, keep):
        pass
    def __getitems__(self, batch):
        return [self[index] for index in batch]
numbers = Numbers(range(4))
if __name__ == "__main__":
    print(list(create_worker_loader(numbers, BatchSampler(SequentialSampler(numbers), 2, False), list, num_workers=1)))
"""


@pytest.mark.parametrize(("code", "shown"), [(GENERATE, str([None] * 8)), (LOAD, "[[0, 1], [2, 3]]")])
def test_generators_and_data_loaders_start_no_such_processes(
    videos: Path, program: Path, code: str, shown: str
) -> None:
    (program / "script").write_text(code)
    done = run(program / "script", cwd=videos)
    assert (done.stdout.strip(), done.stderr.count("was run")) == (shown, 0), done.stderr


def test_python_path_stays_as_the_user_set_it(videos: Path, program: Path, tmp_path: Path) -> None:
    """Decoding children see the modules of `PYTHONPATH`, as the commands do."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "sitecustomize.py").write_text(
        "import os\nwith open(os.environ['SEEN'], 'a') as file:\n    print(os.getpid(), file=file)\n"
    )
    seen = tmp_path / "seen"
    options = ["--store", tmp_path / "store", "--flow", "dis", "--executor", "serial"]
    command = [program / "motionbox", "extract", "--data-root", videos, *options]
    done = run(*command, cwd=videos, PYTHONPATH=str(library), SEEN=str(seen))
    assert done.returncode == 0, done.stderr
    assert len(set(seen.read_text().split())) >= 2
