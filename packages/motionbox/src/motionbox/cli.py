"""The `motionbox` command: each subcommand lives in `motionbox.commands` and is imported only when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import click

from motionbox import __version__
from motionbox.command_line import CONTEXT, LazyGroup, run

# Command -> (module of motionbox.commands, its name there, one-line help).
COMMANDS: dict[str, tuple[str, str, str]] = {
    "extract": ("extract", "extract", "Compute the motion boxes of a data set and keep them in a store."),
    "status": ("status", "status", "Show what a store holds: clips done, failed, by reason."),
    "verify": ("upkeep", "verify", "Read a whole store again and compare it with its digests."),
    "gc": ("upkeep", "gc", "List, or with --delete remove, what nothing in a store refers to."),
    "show": ("show", "show", "Draw a clip's boxes beside its flow and motion map."),
    "report": ("report", "report", "Write a page about a store: failures, distributions, gallery."),
    "export": ("exchange", "export", "Write a store's boxes as the authors' JSON, CSV or COCO."),
    "import-list": ("exchange", "import_list", "Turn lists of other tools into a clip list of the folder data set."),
    "import-boxes": ("exchange", "import_boxes", "Give a store annotated boxes or masks, or chance, to train by."),
    "flow": ("flow", "flow", "Write optical flow to files, in place of denseflow."),
    "evaluate": ("evaluate", "evaluate", "Score a store's boxes against annotated hand and object boxes."),
    "bench-boxes": ("bench", "bench_boxes", "Compare presets on clips with annotated boxes."),
    "synth": ("synth", "synth", "Generate a data set with exact truth, drawn or over footage."),
    "demo": ("demo", "demo", "Run the whole pipeline on generated videos."),
    "bench": ("bench", "bench", "Measure the flow engines: time and accuracy beside OpenCV's."),
}

# Top-level module -> extra of this package that brings it.
EXTRAS: dict[str, str] = {
    **dict.fromkeys(("av", "cv2", "llvmlite", "matplotlib", "numba", "ray", "rich", "scipy"), "extract"),
    **dict.fromkeys(("torch", "triton"), "gpu"),
    "obstore": "cloud",
}


@click.group(cls=LazyGroup, package="motionbox", table=COMMANDS, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="motionbox")
def cli() -> None:
    """Find where the motion is in every video of a data set."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end with its exit code, see `motionbox.command_line.run`.

    Args:
        argv: The arguments; None: those of this process, which ends with the command.
    """
    run(cli, "motionbox", argv, _missing_extra)


def _missing_extra(error: Exception) -> str | None:
    """Return what to install where a command needs an extra that is not there."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    extra = EXTRAS.get((error.name or "").partition(".")[0])
    if extra is None:
        return None
    return f"{error.name} is not installed, and this command needs it: pip install 'motionbox[{extra}]'"
