"""Of motionbox only the store's side is imported; training and `--help` load no more than they need."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import mofo_train

PACKAGE = Path(mofo_train.__file__).parent
ROOMS = ("store", "storage", "inputs.manifest", "motion.boxes", "video", "errors")
OF_EVERY_COMMAND = ("command_line", "settings", "signals", "wording")
ALLOWED = tuple(f"motionbox.{room}" for room in (*ROOMS, *OF_EVERY_COMMAND))
HEAVY = ("ray", "cv2", "numba", "click", "transformers")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def test_only_the_store_side_of_motionbox_is_imported() -> None:
    for path in PACKAGE.rglob("*.py"):
        foreign = {name for name in imports_of(path) if name.split(".")[0] == "motionbox"}
        assert all(name.startswith(ALLOWED) for name in foreign), path


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


def test_the_face_loads_nothing_until_it_is_asked() -> None:
    code = """
import sys, mofo_train
before = [name for name in ("torch", "numpy", "pydantic", "motionbox") if name in sys.modules]
print(before, mofo_train.MotionPooling.__module__, mofo_train.MotionClips.__module__)
"""
    assert printed(code) == "[] mofo_train.models.pooling mofo_train.data.motion_clips"


def printed(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()
