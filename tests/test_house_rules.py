"""The house rules that a program can check: sizes, docstrings, no stubs, no drawer for everything, no twins.

A limit may be exceeded for a reason, which stands in the table of exceptions; an entry without need is refused, too.
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
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
MIN_TWIN_STATEMENTS = 4

TRITON = "one Triton program: its tiles stay in registers from load to store, a part would pass a dozen of them"
CLICK = "a click command has one parameter per option"
EXCEPTIONS: dict[str, str] = {
    "packages/motionbox/src/motionbox/flow/gpu/kernels.py:iterate_kernel": TRITON,
    "packages/motionbox/src/motionbox/flow/gpu/kernels.py:warp_kernel": TRITON,
    "packages/mofo_train/src/mofo_train/commands/table1.py:command": CLICK,
}
"""`path` or `path:function` -> why it may be longer than the limit."""

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


def num_lines(function: Function) -> int:
    """Return the lines from `def` to the end without those of the docstring."""
    docstring = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    own = (function.end_lineno or 0) - function.lineno + 1
    return own if docstring is None else own - ((docstring.end_lineno or 0) - docstring.lineno + 1)


def too_long() -> dict[str, str]:
    """Return what exceeds a limit, and by how many lines."""
    found = {}
    for path in FILES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            found[name_of(path)] = f"{lines} lines, at most {MAX_FILE_LINES}"
        for function in functions_of(tree_of(path)):
            if num_lines(function) > MAX_FUNCTION_LINES:
                where = f"{name_of(path)}:{function.name}"
                found[where] = f"{num_lines(function)} lines, at most {MAX_FUNCTION_LINES}"
    return found


def test_files_and_functions_are_short_or_have_a_reason() -> None:
    unexcused = {where: what for where, what in too_long().items() if where not in EXCEPTIONS}
    assert unexcused == {}


def test_no_exception_outlives_its_need() -> None:
    assert set(EXCEPTIONS) - set(too_long()) == set()
    assert all(len(reason.split()) >= 5 for reason in EXCEPTIONS.values())


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


def test_the_way_of_the_data_names_every_module() -> None:
    """CONTRIBUTING.md walks through both packages by file names, or by the names of whole folders (`pictures/`)."""
    tables = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("| step (in `")[1:]
    assert len(tables) == 2
    for table in tables:
        folder = ROOT / table.split("`")[0]
        named = re.findall(r"`([^`]+)`", table.split("\n\n")[0].split("\n", 1)[1])
        assert [name for name in named if not (folder / name).exists()] == []
        paths = [path.relative_to(folder) for path in SOURCES if path.is_relative_to(folder)]
        modules = [path for path in paths if path.name not in ("__init__.py", "__main__.py")]
        assert [str(path) for path in modules if not {f"{path.parts[0]}/", str(path)} & set(named)] == []


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


def test_lines_are_counted_without_the_docstring() -> None:
    code = "def f(\n    a,\n):\n    '''One.\n\n    More.\n    '''\n    return a\n"
    assert num_lines(next(functions_of(ast.parse(code)))) == 4


def test_twins_are_recognised_under_other_names() -> None:
    one, other, third = functions_of(
        ast.parse("def f(a: int):\n 'Say.'\n return a + 1\ndef g(a): return a + 1\ndef h(a): return a + 2")
    )
    assert shape_of(one) == shape_of(other) != shape_of(third)
