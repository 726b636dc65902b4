"""The `mofo-train` command: each subcommand lives in `mofo_train.commands` and is imported only when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import click

from mofo_train import __version__
from motionbox.command_line import CONTEXT, LazyGroup, run

# Command -> (module of mofo_train.commands, its name there, one-line help).
COMMANDS: dict[str, tuple[str, str, str]] = {
    "inspect": ("inspect", "command", "What the masks of a recipe will do on a store: boxes and areas side by side."),
    "pretrain": (
        "pretrain",
        "command",
        "Pretrain a masked autoencoder guided by motion; the same command resumes.",
    ),
    "finetune": ("finetune", "command", "Finetune a classifier from pretrained weights; the same command resumes."),
    "evaluate": ("evaluate", "command", "Test a classifier by its data set's rules; keeps every prediction."),
    "table1": ("table1", "command", "Every row of Table 1 or of an ablation, from data to table."),
    "study": ("study", "command", "When guidance pays: gain over VideoMAE as curves, from data to picture."),
    "saliency": ("saliency", "command", "Where a classifier looks, beside the motion box."),
    "bench": ("bench", "command", "Measure how fast model, loader, masks and fusion are here."),
    "convert": (
        "convert",
        "command",
        "Turn weights of VideoMAE, MOFO, Hugging Face or ours into another's.",
    ),
}


@click.group(cls=LazyGroup, package="mofo_train", table=COMMANDS, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="mofo-train")
def cli() -> None:
    """Learn from videos with an eye on where the motion is."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end with its exit code, see `motionbox.command_line.run`.

    Args:
        argv: The arguments; None: those of this process, which ends with the command.
    """
    run(cli, "mofo-train", argv, too_little_memory)


def too_little_memory(error: Exception) -> str | None:
    """Return what to change where a device's memory does not suffice, None for other errors."""
    # PyTorch's error is known by name: importing it takes longer than most commands.
    if not isinstance(error, RuntimeError) or type(error).__name__ != "OutOfMemoryError":
        return None
    remedy = "compute a batch in more parts (--set optim.grad_accum_steps=8)"
    remedy += " or keep less of it (--set model.grad_checkpointing=true)"
    first_line = str(error).partition(". ")[0]
    return f"the device must have enough memory, got: {first_line}; {remedy}"
