"""What the command lines of both packages have in common: lazy commands, exit codes, messages, safe processes.

`run` is the whole life of a command: signals, errors as one line on stderr, the exit code. What a command tells its
user on the way goes through Python's `logging`, to stderr; its result goes to stdout.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import click

from motionbox.errors import (
    ExitCode,
    InputError,
    MotionBoxError,
    refuse_urls,
    safe_path,
)
from motionbox.signals import interrupted_by_signals
from motionbox.storage.paths import StorePath, parse_place
from motionbox.wording import describe_os_error, did_you_mean, one_line

# Every command inherits these from its group.
CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}
_DETAILED = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LazyGroup(click.Group):
    """A click group that imports a subcommand's module when it is invoked, and gives every command -q and -v.

    Args:
        package: Name of the package whose room `commands` holds the modules.
        table: Command -> (module there, name of the command in it, one-line help). The help stands in the table so
            that `--help` stays fast.
        settings: What click's own group takes.
    """

    def __init__(self, *, package: str, table: Mapping[str, tuple[str, str, str]], **settings: Any) -> None:
        super().__init__(**settings)
        self._package, self._table = package, table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the command names in the order of use."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one subcommand."""
        if cmd_name not in self._table:
            return None
        module, name, _ = self._table[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"{self._package}.commands.{module}"), name)
        if not any(parameter.name == "loudness" for parameter in command.params):
            command.params.extend(_loudness_options())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for; an unknown one is answered with the nearest."""
        if args and args[0] not in self._table and not args[0].startswith("-"):
            hint = did_you_mean(args[0], list(self._table), f"commands: {', '.join(self._table)}")
            ctx.fail(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the command list from the table, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in self._table.items()])


def _loudness_options() -> list[click.Option]:
    def choose(_context: click.Context, _parameter: click.Parameter, level: int | None) -> None:
        if level is not None:
            set_log_level(level)

    return [
        click.Option(
            [f"-{name[0]}", f"--{name}", "loudness"],
            flag_value=level,
            type=int,
            expose_value=False,
            callback=choose,
            help=text,
        )
        for name, level, text in (
            ("quiet", logging.WARNING, "Say on stderr only what may be wrong, and show no progress.  [off]"),
            ("verbose", logging.DEBUG, "Say on stderr also every step, with its time.  [off]"),
        )
    ]


class _ToStderr(logging.Handler):
    """Writes to stderr as it is when a line comes: as plain text, as a terminal or a test wants it."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def set_log_level(level: int) -> None:
    """Set from which level on both packages' messages are shown; with DEBUG, each with time and module."""
    for name in ("motionbox", "mofo_train"):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        for handler in logger.handlers:
            if isinstance(handler, _ToStderr):
                handler.setFormatter(logging.Formatter(_DETAILED if level <= logging.DEBUG else None))


@contextlib.contextmanager
def _messages_on_stderr() -> Iterator[None]:
    """Show both packages' messages on stderr meanwhile, from INFO on."""
    handler = _ToStderr()
    loggers = [logging.getLogger(name) for name in ("motionbox", "mofo_train")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
    set_log_level(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def run(
    group: click.Group,
    program: str,
    argv: Sequence[str] | None,
    explain: Callable[[Exception], str | None] = lambda _: None,
) -> NoReturn:
    """Run a command line and end with its exit code; what the user can act on becomes one line on stderr.

    Args:
        group: The commands.
        program: Its name.
        argv: The arguments; None: those of this process, which ends with the command.
        explain: Returns the line for an error that only this program knows, None for a fault of the program.
    """
    try:
        _show_any_text()
        arguments = list(sys.argv[1:] if argv is None else argv)
        refuse_urls(arguments)
        with safe_path(), _messages_on_stderr(), interrupted_by_signals(last=argv is None):
            code = group.main(args=arguments or ["--help"], prog_name=program, standalone_mode=False)
            sys.stdout.flush()
    except click.Abort:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:
        message = _explain(error) or explain(error)
        if message is None:
            raise
        click.echo(f"{program}: error: {message}", err=True)
        sys.exit(getattr(error, "exit_code", ExitCode.USAGE) if isinstance(error, MotionBoxError) else ExitCode.USAGE)
    sys.exit(code if isinstance(code, int) else ExitCode.OK)


def _explain(error: Exception) -> str | None:
    """Return the line for an error that a user can act on, None for others."""
    if isinstance(error, click.ClickException):  # in one line, where click would take four with the usage
        message = one_line(" ".join(error.format_message().split("\n")))
        context = getattr(error, "ctx", None)
        return message if context is None else f"{message.removesuffix('.')}; see {context.command_path} --help"
    if isinstance(error, MotionBoxError):
        return one_line(error)
    if isinstance(error, OSError) and error.errno is not None:
        # what nobody foresaw: a full disk under a picture, a folder of somebody else's
        return one_line(describe_os_error(error))
    return None


def _show_any_text() -> None:
    """Have names that the terminal's encoding lacks written with escapes, and nothing where an output is closed.

    Python would end in an error on the former, and has `None` for the latter.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123  (for good)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class StorePlace(click.ParamType[StorePath]):
    """Where a store lies: a directory, or the URL of a prefix in a bucket."""

    name = "path or url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> StorePath:
        """Return the place; refuse a URL that no store can lie at."""
        try:
            return parse_place(value)
        except InputError as error:
            self.fail(str(error), param, ctx)
