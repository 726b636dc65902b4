"""What a user of the wheels gets: their content, their extras, and a light reader that works alone."""

import email
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from motionbox import __version__
from motionbox.extraction.snapshot import make_snapshot
from store_support import commit_units, make_run, number_videos

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("motionbox", "mofo_train")
_CONSTRAINTS = ROOT / "constraints.txt"

pytestmark = pytest.mark.slow


def run(*command: str | Path, **environment: str) -> str:
    """Run a command without this checkout on the path; returns what it wrote."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, env=inherited | environment, cwd="/", capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both packages as `make dist` does: the sdist from the tree, the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    for package in PACKAGES:
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT / "packages" / package)
    return folder


def wheel(built: Path, package: str) -> Path:
    return built / f"{package}-{__version__}-py3-none-any.whl"


@pytest.mark.parametrize("package", PACKAGES)
def test_wheels_hold_the_package_and_nothing_else(built: Path, package: str) -> None:
    names = set(zipfile.ZipFile(wheel(built, package)).namelist())
    source = ROOT / "packages" / package / "src"
    tracked = subprocess.run(["git", "ls-files", "."], cwd=source, capture_output=True, text=True, check=True)
    info = f"{package}-{__version__}.dist-info"
    facts = {"METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE", "RECORD"}
    assert names == {*tracked.stdout.split(), *(f"{info}/{name}" for name in facts)}
    needed = {
        "motionbox": {"py.typed", "configs/paper.toml", "data_manifests/ssv2.toml", "pictures/assets/report.html"},
        "mofo_train": {"py.typed", "recipes/ssv2_pretrain_vitb_mofo.toml"},
    }
    assert {f"{package}/{name}" for name in needed[package]} <= names


@pytest.mark.parametrize("package", PACKAGES)
def test_sdists_hold_real_files_and_no_tests(built: Path, package: str) -> None:
    with tarfile.open(built / f"{package}-{__version__}.tar.gz") as archive:
        assert all(entry.isfile() for entry in archive.getmembers())
        names = {entry.name.partition("/")[2] for entry in archive.getmembers()}
        text = archive.extractfile(f"{package}-{__version__}/LICENSE")
        assert text is not None
        assert text.read() == (ROOT / "LICENSE").read_bytes()
    assert {name for name in names if not name.startswith("src/")} == {
        *(".gitignore", "LICENSE", "README.md", "pyproject.toml", "PKG-INFO")
    }


def requirements(path: Path) -> dict[str, set[str]]:
    """Return the distributions that a wheel asks for, by extra ('' without one)."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    found: dict[str, set[str]] = {}
    for line in metadata.get_all("Requires-Dist") or []:
        requirement, _, marker = line.partition(";")
        extra = marker.split("extra == '")[-1].split("'")[0] if "extra ==" in marker else ""
        found.setdefault(extra, set()).add(requirement.split(">")[0].split("[")[0].strip())
    return found


def test_the_extras_are_those_promised(built: Path) -> None:
    extract = {"av", "matplotlib", "numba", "opencv-contrib-python-headless", "ray", "rich", "scipy"}
    assert requirements(wheel(built, "motionbox")) == {
        "": {"click", "numpy", "pyarrow", "pydantic", "zarr"},
        "extract": extract,
        "gpu": {*extract, "torch", "triton"},
    }
    assert {"motionbox", "torch", "torchvision", "timm"} <= requirements(wheel(built, "mofo_train"))[""]


@pytest.fixture(scope="module")
def reader_bin(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install plain `motionbox` into a fresh environment, from the index that pip knows; returns its bin folder."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    target = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    run(*target, "install", "--quiet", "-c", _CONSTRAINTS, wheel(built, "motionbox"))
    return folder / "bin"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Make a store of two small videos, with motion maps, by the code of this checkout."""
    manifest = number_videos(tmp_path / "videos", {"a": "30@25", "b": "12@25"})
    made = make_run(tmp_path / "store", tmp_path / "videos", manifest)
    commit_units(made)
    make_snapshot(made)
    return tmp_path / "store"


def test_the_reader_alone_opens_a_store(reader_bin: Path, store: Path) -> None:
    code = (
        "import importlib.util as u, sys; from motionbox.store import open_store\n"
        "with open_store(sys.argv[1]) as s:\n"
        "    print(s.clips()['clip_id'].to_pylist(), s.frame_boxes('a').shape, s.motion_maps('b').shape)\n"
        "print([m for m in ('av', 'cv2', 'matplotlib', 'numba', 'ray', 'rich', 'scipy', 'torch') if u.find_spec(m)])\n"
    )
    assert run(reader_bin / "python", "-c", code, store).splitlines() == ["['a', 'b'] (30, 4) (12, 12, 12)", "[]"]


def test_the_command_is_installed_and_names_what_it_lacks(reader_bin: Path, store: Path, tmp_path: Path) -> None:
    assert run(reader_bin / "motionbox", "--version") == f"motionbox, version {__version__}\n"
    assert "1 of 1 committed" in run(reader_bin / "motionbox", "status", store)
    done = subprocess.run(
        [reader_bin / "motionbox", "synth", "-o", tmp_path / "data"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "pip install 'motionbox[extract]'" in done.stderr
