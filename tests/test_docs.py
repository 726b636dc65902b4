"""What README and docs/ tell a user to type exists: commands, options, make targets, links."""

import re
import shlex
from pathlib import Path

import click
import pytest

import mofo_train.cli
import motionbox.cli
from mofo_train.config import recipe_names
from motionbox.config import preset_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted(ROOT.glob("packages/*/README.md"))
GROUPS: dict[str, click.Group] = {"motionbox": motionbox.cli.cli, "mofo-train": mofo_train.cli.cli}
FOLDERS = ("packages", "tests", "benchmarks", "examples", "data_manifests", ".github")
FILES = [path.as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
COMMANDS = {program: group.list_commands(click.Context(group)) for program, group in GROUPS.items()}


def typed_lines(page: Path) -> list[str]:
    """Return every command line of the page: lines of code blocks and inline code."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^    (\S.*)$", text, flags=re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += re.findall(r"`([^`\n]+)`", prose)
    return [re.sub(r"^\$ |^[A-Z_]+=\S+ ", "", line.strip()) for line in lines]


def parameters(program: str, name: str) -> set[str]:
    group = GROUPS[program]
    command = group.get_command(click.Context(group), name)
    assert command is not None
    commands = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
    return {option for command in commands for parameter in command.params for option in
            (*parameter.opts, *parameter.secondary_opts)} | {"--help", "-h"}  # fmt: skip


def problems_of(line: str) -> list[str]:
    words = shlex.split(re.split(r"\s[#|>;]|\s&&", line.replace("[", "").replace("]", ""))[0])
    if len(words) < 2 or words[0] not in COMMANDS or words[1].startswith("-"):
        return []
    program, names = words[0], words[1].split("|")
    unknown = [name for name in names if re.fullmatch(r"[a-z0-9-]+", name) and name not in COMMANDS[program]]
    if unknown:
        return [f"{program} has no command {unknown[0]}"]
    known = set().union(*(parameters(program, name) for name in names if name in COMMANDS[program]))
    given = [word.split("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)]
    return [f"{program} {words[1]} has no option {option}" for option in given if option not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    problems = []
    for line in typed_lines(page):
        if line.split(" ")[0] in COMMANDS and "'" not in line.replace("'...'", ""):
            problems += [f"{problem}: {line}" for problem in problems_of(line)]
    assert problems == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_recipes_and_presets_exist(page: Path) -> None:
    assert [problem for line in typed_lines(page) for problem in unknown_names(line)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    """A page names a file by its path from the root of the repository or of a package, or by the end of it."""
    named = re.findall(r"`([\w./]+/[\w.]+\.(?:py|toml|yml))`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not any(path.endswith("/" + name) for path in FILES)] == []


def unknown_names(line: str) -> list[str]:
    """Return the recipes and presets of a command line that the packages do not have; `R` and `<...>` stand for any."""
    known = {"recipe": recipe_names(), "preset": preset_names()}
    given = (
        re.findall(r"--(recipe|preset)[ =]([a-z0-9_]+)(?![\w./<])", line) if line.startswith(tuple(COMMANDS)) else []
    )
    return [f"there is no {kind} {name}: {line}" for kind, name in given if name not in known[kind]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {match for line in typed_lines(page) for match in re.findall(r"^make ([a-z0-9-]+)", line)}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


def test_a_wrong_command_is_noticed() -> None:
    assert problems_of("motionbox extrakt") == ["motionbox has no command extrakt"]
    assert problems_of("motionbox status S --colour red") == ["motionbox status has no option --colour"]
    assert problems_of("motionbox status S") == []
    assert unknown_names("motionbox extract --preset=tunde") == [
        "there is no preset tunde: motionbox extract --preset=tunde"
    ]
    assert len(unknown_names("mofo-train pretrain --recipe ssv2_pretrain --store S")) == 1
    assert unknown_names("mofo-train pretrain --recipe ssv2_pretrain_vitb_mofo --store S --out R") == []
    assert unknown_names("mofo-train pretrain --recipe mine.toml") == []
