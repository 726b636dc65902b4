"""The house rules that no linter knows: small rooms, docstrings, no stubs, no drawer for everything, no twins.

The order of the rooms is held by import-linter, complexity and style by ruff (both in `pyproject.toml`).
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_FILES_IN_A_ROOM = 12
MAX_MODULES_AT_THE_ROOT = 8
MIN_TWIN_STATEMENTS = 4

SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
TESTS = sorted([*ROOT.glob("packages/*/tests/**/*.py"), *ROOT.glob("tests/**/*.py")])
FILES = [*SOURCES, *TESTS, *sorted(ROOT.glob("benchmarks/*.py"))]
FORBIDDEN_NAMES = {"utils", "util", "helpers", "misc", "common"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions_of(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_of(node: Function | ast.ClassDef) -> list[ast.stmt]:
    """Return the statements after the docstring."""
    return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body


def modules_in(folder: Path) -> list[str]:
    """Return the modules that stand in a folder, without the files that only make it a package or a command."""
    return sorted(path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "__main__"))


@pytest.mark.parametrize("package", sorted((ROOT / "packages").glob("*/src/*")), ids=lambda path: path.name)
def test_rooms_are_small(package: Path) -> None:
    """A package's root holds its face alone, and a room no more files than a reader keeps in mind."""
    assert len(modules_in(package)) <= MAX_MODULES_AT_THE_ROOT
    rooms = {path.parent for path in package.rglob("*.py")} - {package}
    full = {str(room.relative_to(package)): len(list(room.glob("*.py"))) for room in rooms}
    assert {room: count for room, count in full.items() if count > MAX_FILES_IN_A_ROOM} == {}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_import_hides_in_a_string(path: Path) -> None:
    """A registry names what it makes; an import path in a string is an arrow that no tool sees."""
    strings = (node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant))
    hidden = [
        text for text in strings if isinstance(text, str) and re.fullmatch(r"(motionbox|mofo_train)[.\w]+:\w+", text)
    ]
    assert hidden == []


def undocumented(node: ast.Module | ast.ClassDef, where: str) -> Iterator[str]:
    """Yield the public classes, functions and methods without a docstring; private ones need none."""
    for child in node.body:
        if not isinstance(child, Function | ast.ClassDef) or child.name.startswith("_"):
            continue
        if ast.get_docstring(child) is None and not is_overload(child):
            yield f"{where}:{child.name}"
        if isinstance(child, ast.ClassDef):
            yield from undocumented(child, f"{where}:{child.name}")


def is_overload(node: Function | ast.ClassDef) -> bool:
    return any(isinstance(entry, ast.Name) and entry.id == "overload" for entry in node.decorator_list)


def test_everything_public_has_a_docstring() -> None:
    missing = [name_of(path) for path in SOURCES if ast.get_docstring(tree_of(path)) is None]
    missing += [entry for path in SOURCES for entry in undocumented(tree_of(path), name_of(path))]
    assert missing == []


def comments_of(path: Path) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_nothing_is_left_for_later() -> None:
    left = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    found = [f"{name_of(path)}:{line}" for path in FILES for line, text in comments_of(path) if left.search(text)]
    assert found == []


def protocol_functions(tree: ast.Module) -> set[Function]:
    """Return the methods of protocols, whose bodies say nothing."""
    protocols = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases)
    ]
    return {function for protocol in protocols for function in functions_of(protocol)}


def is_stub(function: Function) -> bool:
    """Tell whether a function does nothing and does not say so: a docstring alone is a function that does nothing."""
    body = body_of(function)
    if not body:
        return False
    empty = [
        isinstance(node, ast.Pass)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...)
        or (isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node))
        for node in body
    ]
    return all(empty)


def test_there_are_no_stubs() -> None:
    found = [
        f"{name_of(path)}:{function.name}"
        for path in SOURCES
        for function in set(functions_of(tree_of(path))) - protocol_functions(tree_of(path))
        if is_stub(function)
    ]
    assert found == []


def test_no_module_is_a_drawer_for_everything() -> None:
    assert [name_of(path) for path in FILES if path.stem.strip("_") in FORBIDDEN_NAMES] == []
    assert [name_of(path) for path in SOURCES if re.search(r"_(v[0-9]|old|new|copy|BB)$", path.stem)] == []


def shape_of(function: Function, module: str = "") -> str:
    """Return what a function does, whatever its name, docstring and annotations; `_names` are their module's."""
    text = "".join(ast.dump(statement) for statement in body_of(function))
    text = re.sub(r"Name\(id='_", f"Name(id='{module}._", text)
    arguments = ",".join(entry.arg for entry in ast.walk(function.args) if isinstance(entry, ast.arg))
    return hashlib.sha256(f"{arguments}:{text}".encode()).hexdigest()


def test_no_function_has_a_twin() -> None:
    """No two functions of a package do the same, statement by statement."""
    twins: dict[tuple[str, str], list[str]] = {}
    for path in SOURCES:
        for function in functions_of(tree_of(path)):
            num_statements = sum(isinstance(node, ast.stmt) for entry in body_of(function) for node in ast.walk(entry))
            if num_statements >= MIN_TWIN_STATEMENTS:
                key = path.relative_to(ROOT).parts[1], shape_of(function, name_of(path))
                twins.setdefault(key, []).append(f"{name_of(path)}:{function.name}")
    assert [names for names in twins.values() if len(names) > 1] == []


@pytest.mark.parametrize(
    ("code", "stub"),
    [
        ("def f(): pass", True),
        ("def f():\n 'Say.'\n ...", True),
        ("def f(): raise NotImplementedError('later')", True),
        ("def f():\n 'Do nothing.'", False),
        ("def f(): return 1", False),
    ],
)
def test_stubs_are_recognised(code: str, stub: bool) -> None:
    assert is_stub(next(functions_of(ast.parse(code)))) is stub


def test_twins_are_recognised_under_other_names() -> None:
    one, other, third = functions_of(
        ast.parse("def f(a: int):\n 'Say.'\n return a + 1\ndef g(a): return a + 1\ndef h(a): return a + 2")
    )
    assert shape_of(one) == shape_of(other) != shape_of(third)
