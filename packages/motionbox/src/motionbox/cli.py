"""The `motionbox` command: each subcommand lives in `motionbox.commands` and is imported only when it is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from motionbox import __version__
from motionbox.errors import (
    ExitCode,
    MotionBoxError,
    describe_os_error,
    one_line,
    refuse_urls,
    safe_path,
    show_any_text,
)
from motionbox.signals import interrupted_by_signals

# Command -> (module of motionbox.commands, one-line help); its function there has its name. The help stands here so
# that `--help` stays fast.
COMMANDS: dict[str, tuple[str, str]] = {
    "extract": ("extract", "Compute the motion boxes of a data set and keep them in a store."),
    "status": ("status", "Show what a store holds: clips done, failed, by reason."),
    "verify": ("upkeep", "Read a whole store again and compare it with its digests."),
    "gc": ("upkeep", "List, or with --delete remove, what nothing in a store refers to."),
    "show": ("show", "Draw a clip's boxes beside its flow and motion map."),
    "report": ("report", "Write a page about a store: failures, distributions, gallery."),
    "export": ("exchange", "Write a store's boxes as the authors' JSON, CSV or COCO."),
    "import-list": ("exchange", "Turn lists of other tools into a clip list of the folder data set."),
    "import-boxes": ("exchange", "Give a store annotated boxes or masks, or chance, to train by."),
    "flow": ("flow", "Write optical flow to files, in place of denseflow."),
    "evaluate": ("evaluate", "Score a store's boxes against annotated hand and object boxes."),
    "bench-boxes": ("bench", "Compare presets on clips with annotated boxes."),
    "synth": ("synth", "Generate a data set with exact truth, drawn or over footage."),
    "demo": ("demo", "Run the whole pipeline on generated videos."),
    "bench": ("bench", "Measure the flow engines: time and accuracy beside OpenCV's."),
}


# Top-level module -> extra of this package that brings it.
EXTRAS: dict[str, str] = {
    **dict.fromkeys(("av", "cv2", "llvmlite", "numba", "ray", "rich", "scipy"), "extract"),
    **dict.fromkeys(("torch", "triton"), "gpu"),
}


class LazyGroup(click.Group):
    """A click group that imports a subcommand's module when it is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the command names in the order of the pipeline."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one subcommand."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"motionbox.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the command list from the table above, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


# Every command inherits these from the group.
CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="motionbox")
def cli() -> None:
    """Find where the motion is in every video of a data set."""


def _one_line(error: click.ClickException) -> str:
    """Return what click has to say in one line, where it would take four with the usage."""
    message = one_line(" ".join(error.format_message().split("\n")))
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message.removesuffix('.')}; see {context.command_path} --help"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a `MotionBoxError` or a missing extra becomes one line on stderr and its exit code.

    Args:
        argv: The arguments; None: those of this process, which ends with the command.
    """
    try:
        show_any_text()
        refuse_urls(sys.argv[1:] if argv is None else argv)
        with safe_path(), interrupted_by_signals(last=argv is None):
            code = cli.main(args=None if argv is None else list(argv), prog_name="motionbox", standalone_mode=False)
            sys.stdout.flush()
    except click.ClickException as error:
        click.echo(f"motionbox: error: {_one_line(error)}", err=True)
        sys.exit(ExitCode.USAGE)
    except click.Abort:
        sys.exit(ExitCode.INTERRUPTED)
    except MotionBoxError as error:
        click.echo(f"motionbox: error: {one_line(error)}", err=True)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        remedy = f"pip install 'motionbox[{extra}]'"
        click.echo(f"motionbox: error: {error.name} is not installed, and this command needs it: {remedy}", err=True)
        sys.exit(ExitCode.USAGE)
    except OSError as error:  # what nobody foresaw: a full disk under a picture, a folder of somebody else's
        if error.errno is None:
            raise
        click.echo(f"motionbox: error: {one_line(describe_os_error(error))}", err=True)
        sys.exit(ExitCode.USAGE)
    sys.exit(code if isinstance(code, int) else ExitCode.OK)
