"""Every command of both programs as its `--help` shows it: defaults, examples, completion."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import mofo_train.cli
import motionbox.cli
from motionbox.config import preset_names
from motionbox.errors import InputError, refuse_urls

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
        "ssv2_pretrain_vitb_mofo_area",
        "ssv2_pretrain_vitb_videomae",
    ]


URLS = [
    ("motionbox", "export", "s3://bucket/x", "--format", "csv", "-o", "s3://bucket/boxes.csv"),
    ("motionbox", "extract", "--data-root=https://bucket/x"),
    ("motionbox", "status", "ftp://host/container"),
    ("motionbox", "show", "hdfs://node:9000/x", "clip", "-o", "a.mp4"),
    ("motionbox", "import-list", "https://host/train.csv", "--data-root", "."),
    ("motionbox", "flow", "file:///data/a.mp4", "-o", "out"),
    ("mofo-train", "finetune", "--data-root", "abfss://c@a.dfs.core.windows.net/x"),
    ("mofo-train", "evaluate", "--set", "data.root=s3://bucket/x"),
    ("mofo-train", "convert", "S3://bucket/weights.pth", "out.pth"),
]
MAINS = {"motionbox": motionbox.cli.main, "mofo-train": mofo_train.cli.main}


@pytest.mark.parametrize("words", URLS, ids=" ".join)
def test_a_url_where_a_path_belongs_is_one_line(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        MAINS[words[0]](words[1:])
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{words[0]}: error: a path must be local, got '")
    assert line.endswith("can lie in object storage (s3://bucket/..., gs://, az://): mount it or copy it here")


def test_urls_are_refused_wherever_a_path_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="a path must be local, got 's3:/"):
        motionbox.open_store(Path("s3://bucket/x"))  # a Path has lost a slash
    with pytest.raises(InputError, match=r"a store must be a local path or one of s3://.*, got 'ftp://host/x'"):
        motionbox.open_store("ftp://host/x")
    for path in ("https://bucket/x", Path("s3://bucket/x")):
        with pytest.raises(InputError, match="a path must be local, got '"):
            motionbox.load_manifest("folder", path)
    monkeypatch.setenv("MOTIONBOX_DATA", "https://bucket")
    with pytest.raises(SystemExit) as stop:
        motionbox.cli.main(["extract", "--workers", "0"])
    assert stop.value.code == 2


def test_addresses_of_clusters_and_names_with_colons_are_no_urls() -> None:
    refuse_urls(["extract", "--ray-address", "ray://head:10001", "--ray-address=ray://head:10001"])
    refuse_urls(["C:\\videos\\a.mp4", "C:/videos/a.mp4", "a:b", "take 2: a//b.mp4", "--set", "x=1", "//host/share"])
    refuse_urls(["gc", "--delete", "s3://bucket/x"])
    with pytest.raises(InputError, match="'ray://head'"):
        refuse_urls(["--data-root", "ray://head"])


@pytest.mark.parametrize("program", GROUPS)
def test_names_that_the_terminal_cannot_show_are_written_with_escapes(program: str) -> None:
    code = f"from {MODULES[program]}.cli import main; main()"
    words = {"motionbox": ["status", "Türe"], "mofo-train": ["pretrain", "--store", "Türe"]}[program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "\udcff"], env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("program", GROUPS)
def test_a_reader_that_goes_away_ends_the_command_without_a_word(program: str) -> None:
    code = f"from {MODULES[program]}.cli import main; input(); main(['--help'])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write("go\n")
        process.stdin.close()
        assert process.stderr.read() == ""
