"""What the command lines of both packages share: lazy commands, messages by logging, one line for every error."""

import logging
import re
import sys

import click
import pytest

from motionbox.command_line import LazyGroup, run
from motionbox.errors import ExitCode, InputError

_LOG = logging.getLogger("motionbox.of_a_test")
_TRAIN_LOG = logging.getLogger("mofo_train.of_a_test")


def ending(capsys: pytest.CaptureFixture[str], group: click.Group, *arguments: str) -> tuple[int, str, str]:
    """Run a command line; returns exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as stop:
        run(group, "program", arguments)
    written = capsys.readouterr()
    return int(stop.value.code or 0), written.out, written.err


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> LazyGroup:
    """Commands of a package that is made for the test: `say-all`, and `break`, whose module cannot be imported."""

    @click.command
    def say_all() -> int:
        _LOG.debug("unit %d", 1)
        _LOG.info("two clips")
        _TRAIN_LOG.info("step 1")
        _LOG.warning("one is broken")
        click.echo("the result")
        return ExitCode.FAILED_CLIPS

    module = type(sys)("pretended.commands.talk")
    module.say_all = say_all  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pretended.commands.talk", module)
    table = {"say-all": ("talk", "say_all", "Say all."), "break": ("absent", "absent", "Break.")}
    return LazyGroup(package="pretended", table=table, name="program")


def test_results_go_to_stdout_and_messages_to_stderr(group: LazyGroup, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ending(capsys, group, "say-all")
    assert (code, out) == (ExitCode.FAILED_CLIPS, "the result\n")
    assert err == "two clips\nstep 1\none is broken\n"


def test_quiet_leaves_the_warnings(group: LazyGroup, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(capsys, group, "say-all", "-q")[1:] == ("the result\n", "one is broken\n")
    assert "two clips" in ending(capsys, group, "say-all")[2], "it is forgotten with the command"


def test_verbose_tells_every_step_with_its_time(group: LazyGroup, capsys: pytest.CaptureFixture[str]) -> None:
    first = ending(capsys, group, "say-all", "--verbose")[2].splitlines()[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} DEBUG motionbox\.of_a_test: unit 1", first)


def test_after_a_command_the_loggers_are_as_before(group: LazyGroup, capsys: pytest.CaptureFixture[str]) -> None:
    before = [
        (logging.getLogger(name).level, logging.getLogger(name).handlers[:]) for name in ("motionbox", "mofo_train")
    ]
    ending(capsys, group, "say-all", "-v")
    assert before == [
        (logging.getLogger(name).level, logging.getLogger(name).handlers) for name in ("motionbox", "mofo_train")
    ]


def test_help_imports_no_command_and_an_unknown_one_gets_the_nearest(
    group: LazyGroup, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = ending(capsys, group)
    assert code == 0
    assert re.search(r"say-all +Say all\.\n +break +Break\.", out)
    code, _, err = ending(capsys, group, "say-al")
    assert (code, err) == (
        2,
        "program: error: there is no command 'say-al'; did you mean 'say-all'?; see program --help\n",
    )


def test_errors_are_one_line_and_a_fault_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command
    @click.option("--fault", is_flag=True)
    def fail(fault: bool) -> None:
        if fault:
            raise ZeroDivisionError("of the program")
        raise InputError("clips must be there,\nthey are not")

    group = click.Group(commands=[fail])
    assert ending(capsys, group, "fail")[::2] == (2, "program: error: clips must be there,\\nthey are not\n")
    code, _, err = ending(capsys, group, "fail", "--no")
    assert code == 2
    assert re.fullmatch(
        r"program: error: No such option:? '?--no'?; see program fail --help\n", err
    )  # by click's version
    with pytest.raises(ZeroDivisionError):
        run(group, "program", ["fail", "--fault"])
    with pytest.raises(SystemExit) as stop:
        run(group, "program", ["fail", "--fault"], lambda error: f"explained: {error}")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "program: error: explained: of the program\n"
