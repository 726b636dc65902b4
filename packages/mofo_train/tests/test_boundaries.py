"""What imports what: of motionbox only the store's side, rooms in the order of the data, no two files each other."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import mofo_train

PACKAGE = Path(mofo_train.__file__).parent
ALLOWED = ("motionbox.store", "motionbox.inputs.manifest", "motionbox.motion.boxes", "motionbox.errors")
HEAVY = ("ray", "cv2", "numba", "click", "transformers")
ROOMS = (
    *("errors", "config", "finetune_config", "recipes"),
    *("data", "guidance", "models", "runtime", "evaluation", "training", "table", "pictures", "benchmarks"),
    *("commands", "cli"),
)
"""A room, or a module of the package's root, imports only from those before it."""
MAX_ROOT_MODULES, MAX_ROOM_FILES = 8, 13


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def room_of(module: str) -> str | None:
    """Return the room, or the module of the root; None for the face of the package, which everybody may ask."""
    return [*module.split("."), ""][1] or None


def test_only_the_store_side_of_motionbox_is_imported() -> None:
    for path in MODULES.values():
        foreign = {name for name in imports_of(path) if name.split(".")[0] == "motionbox"}
        assert all(name.startswith(ALLOWED) for name in foreign), path


def against_the_order(arrows: dict[str, set[str]]) -> list[str]:
    found = []
    for module, imported in arrows.items():
        room = room_of(module)
        if room is None or room == "__main__":
            continue
        others = {other: room_of(other) for other in imported if other.split(".")[0] == "mofo_train"}
        wrong = {other for other, its in others.items() if its is not None and ROOMS.index(its) > ROOMS.index(room)}
        found += [f"{module} -> {other}" for other in sorted(wrong)]
    return found


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """Return the ways that lead from a module back to it."""
    found: list[str] = []

    def walk(module: str, way: list[str]) -> None:
        if module in way:
            found.append(" -> ".join([*way[way.index(module) :], module]))
        elif module not in done:
            for other in sorted(arrows[module] & set(arrows)):
                walk(other, [*way, module])
            done.add(module)

    done: set[str] = set()
    for module in arrows:
        walk(module, [])
    return found


def test_rooms_import_in_the_order_of_the_data() -> None:
    arrows = {module: imports_of(path) for module, path in MODULES.items()}
    assert against_the_order(arrows) == []
    assert circles(arrows) == []


def test_a_wrong_arrow_and_a_circle_are_seen() -> None:
    arrows = {"mofo_train.data.a": {"mofo_train.models.b"}, "mofo_train.models.b": {"mofo_train.data.a", "torch"}}
    assert against_the_order(arrows) == ["mofo_train.data.a -> mofo_train.models.b"]
    assert circles(arrows) == ["mofo_train.data.a -> mofo_train.models.b -> mofo_train.data.a"]
    assert all(one != other for one, other in pairwise(ROOMS))


def test_rooms_are_small() -> None:
    folders: dict[Path, int] = {}
    for path in MODULES.values():
        if path.name not in ("__init__.py", "__main__.py"):
            folders[path.parent] = folders.get(path.parent, 0) + 1
    assert folders.pop(PACKAGE) <= MAX_ROOT_MODULES
    assert {folder.name: count for folder, count in folders.items() if count > MAX_ROOM_FILES} == {}


def test_training_loads_no_extraction_and_no_command_line() -> None:
    code = f"""
import sys
import mofo_train.training.pretraining, mofo_train.models, mofo_train.data.sources, mofo_train.guidance.masks
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert printed(code) == "[]"


def test_help_imports_no_torch() -> None:
    code = "import sys, mofo_train.cli\nprint([name for name in ('torch', 'numpy', 'pydantic') if name in sys.modules])"
    assert printed(code) == "[]"


def printed(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()
