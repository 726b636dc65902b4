"""Every command of both programs as its `--help` shows it: defaults, examples, completion."""

import importlib
import os
import re
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import mofo_train.cli
import motionbox.cli
from motionbox.config import preset_names

GROUPS: dict[str, click.Group] = {"motionbox": motionbox.cli.cli, "mofo-train": mofo_train.cli.cli}
MODULES = {"motionbox": "motionbox", "mofo-train": "mofo_train"}
NAMES = [
    (program, name) for program, group in GROUPS.items() for name in group.list_commands(click.Context(group))
]  # fmt: skip


def opened(program: str, name: str) -> tuple[click.Command, click.Context]:
    """Return a command and its context as `program name --help` makes them."""
    group = GROUPS[program]
    parent = group.make_context(program, [name, "--help"])
    command = group.get_command(parent, name)
    assert command is not None
    return command, click.Context(command, info_name=name, parent=parent)


@pytest.mark.parametrize(("program", "name"), NAMES)
def test_every_option_shows_its_default(program: str, name: str) -> None:
    command, context = opened(program, name)
    assert context.show_default
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.required or parameter.multiple or parameter.is_flag:
            continue
        _, text = parameter.get_help_record(context) or ("", "")
        assert re.search(r"\[[^\]]+\]$", text), (
            f"{program} {name} {parameter.opts[-1]} does not say its default: {text!r}"
        )


def examples(command: click.Command) -> list[list[str]]:
    """Return the command lines of a command's epilog as words."""
    lines = (command.epilog or "").splitlines()
    return [shlex.split(line) for line in lines if re.match(r"\s+\S", line)]


@pytest.mark.parametrize(("program", "name"), NAMES)
def test_every_command_has_examples_that_parse(program: str, name: str) -> None:
    command, _ = opened(program, name)
    found = examples(command)
    assert 1 <= len(found) <= 2
    for words in found:
        if words[0] == "torchrun":
            words = [program, *words[words.index(MODULES[program]) + 1 :]]
        assert words[:2] == [program, name]
        command.make_context(name, words[2:], parent=click.Context(GROUPS[program]))  # raises on what does not exist


def test_a_wrong_example_is_noticed() -> None:
    command, _ = opened("motionbox", "status")
    with pytest.raises(click.NoSuchOption):
        command.make_context("status", ["S", "--colour"], parent=click.Context(GROUPS["motionbox"]))


def complete(program: str, typed: str) -> list[str]:
    """Return what the shell offers for the last word, as bash asks for it."""
    code = f"from {MODULES[program]}.cli import main; main()"
    words = shlex.split(typed) + ([""] if typed.endswith(" ") else [])
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    given = {variable: "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    environment = {**os.environ, **given, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("program", GROUPS)
def test_the_version_is_that_of_the_package(program: str) -> None:
    expected = f"{program}, version {importlib.import_module(MODULES[program]).__version__}\n"
    assert CliRunner().invoke(GROUPS[program], ["--version"]).output == expected


@pytest.mark.parametrize("program", GROUPS)
def test_the_shell_completes_commands(program: str) -> None:
    assert set(complete(program, f"{program} ")) == {name for owner, name in NAMES if owner == program}


def test_the_shell_completes_options_and_presets() -> None:
    assert complete("motionbox", "motionbox ex") == ["extract", "export"]
    assert complete("motionbox", "motionbox extract --pre") == ["--preset"]
    assert complete("motionbox", "motionbox extract --preset ") == preset_names()
    assert complete("mofo-train", "mofo-train pretrain --recipe ssv2_pretrain") == [
        "ssv2_pretrain_vitb_mofo",
        "ssv2_pretrain_vitb_videomae",
    ]
