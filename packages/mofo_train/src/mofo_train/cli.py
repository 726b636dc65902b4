"""The `mofo-train` command: each subcommand lives in `mofo_train.commands` and is imported only when it is used."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import click

from mofo_train import __version__
from mofo_train.errors import ExitCode
from motionbox.errors import MotionBoxError, describe_os_error, one_line, refuse_urls, safe_path, show_any_text

# Command name (and module under mofo_train.commands) -> one-line help, which stands here so that `--help` stays fast.
COMMANDS: dict[str, str] = {
    "inspect": "What the masks of a recipe will do on a store: boxes and areas side by side.",
    "pretrain": "Pretrain a masked autoencoder guided by motion boxes; the same command resumes.",
    "finetune": "Finetune a classifier from pretrained weights; the same command resumes.",
    "evaluate": "Test a classifier by its data set's rules; keeps every prediction.",
    "table1": "Every row of Table 1 or of an ablation, from data to table.",
    "saliency": "Where a classifier looks, beside the motion box.",
    "bench": "Measure how fast model, loader, masks and fusion are here.",
    "convert": "Read weights of VideoMAE, MOFO, Hugging Face or ours, and write them for another.",
}


class LazyGroup(click.Group):
    """A click group that imports a subcommand's module when it is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the command names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one subcommand."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"mofo_train.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the command list from the table above, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


# Every command inherits these from the group.
CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="mofo-train")
def cli() -> None:
    """Learn from videos with an eye on where the motion is."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end the process with the code of an interruption; a training saves first, it has its own handler."""

    def stop(*_: object) -> NoReturn:
        click.echo("mofo-train: interrupted; the same command goes on", err=True)
        sys.exit(ExitCode.INTERRUPTED)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _one_line(error: click.ClickException) -> str:
    """Return what click has to say in one line, where it would take four with the usage."""
    message = one_line(" ".join(error.format_message().split("\n")))
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message.removesuffix('.')}; see {context.command_path} --help"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a `MotionBoxError`, or a file that cannot be written, becomes one line on stderr."""
    try:
        show_any_text()
        refuse_urls(sys.argv[1:] if argv is None else argv)
        with safe_path(), interruptible():
            code = cli.main(args=None if argv is None else list(argv), prog_name="mofo-train", standalone_mode=False)
            sys.stdout.flush()
    except click.ClickException as error:
        click.echo(f"mofo-train: error: {_one_line(error)}", err=True)
        sys.exit(ExitCode.USAGE)
    except click.Abort:
        sys.exit(ExitCode.INTERRUPTED)
    except MotionBoxError as error:  # ours are among them
        click.echo(f"mofo-train: error: {one_line(error)}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # what nobody foresaw: a full disk under a log, a folder of somebody else's
        if error.errno is None:
            raise
        click.echo(f"mofo-train: error: {one_line(describe_os_error(error))}", err=True)
        sys.exit(ExitCode.USAGE)
    except RuntimeError as error:
        # PyTorch's, known by name: importing it takes longer than most commands.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        remedy = "compute a batch in more parts (--set optim.grad_accum_steps=8)"
        remedy += " or keep less of it (--set model.grad_checkpointing=true)"
        first_line = str(error).partition(". ")[0]
        click.echo(f"mofo-train: error: the device must have enough memory, got: {first_line}; {remedy}", err=True)
        sys.exit(ExitCode.USAGE)
    sys.exit(code if isinstance(code, int) else ExitCode.OK)
