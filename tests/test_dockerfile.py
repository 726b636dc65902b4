"""The Dockerfile copies what is there and what .dockerignore lets through."""

import re
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
_RULES = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
ALLOWED = [line.removeprefix("!") for line in _RULES if line.startswith("!")]


def allowed(path: str) -> bool:
    """Return whether an exception of .dockerignore names a path or a folder above it."""
    places = [path, *(str(parent) for parent in Path(path).parents)]
    return any(fnmatch(place, rule) and place.count("/") == rule.count("/") for place in places for rule in ALLOWED)


def test_the_context_is_what_the_images_are_built_from() -> None:
    copied = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, flags=re.MULTILINE)
    copied += re.findall(r"type=bind,source=([^,\s]+)", DOCKERFILE)
    assert set(copied) == {"constraints.txt", "packages"}
    for package in ("motionbox", "mofo_train"):
        for name in ("pyproject.toml", "README.md", "LICENSE", f"src/{package}/__init__.py", f"src/{package}/py.typed"):
            assert (ROOT / "packages" / package / name).is_file()
            assert allowed(f"packages/{package}/{name}")
    assert not allowed("packages/motionbox/tests/conftest.py")
    assert not allowed(".git/config")


def test_every_image_ends_as_a_user_without_rights_and_knows_no_index() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    images = {stage.splitlines()[0].rsplit(" AS ", 1)[1]: stage for stage in stages}
    assert set(images) == {"wheels", "cpu", "cuda"}
    for name in ("cpu", "cuda"):
        assert re.findall(r"^USER (\S+)$", images[name], flags=re.MULTILINE) == ["10001"]
    assert "index-url" not in DOCKERFILE
    assert "://" not in DOCKERFILE
