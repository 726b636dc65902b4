"""The subcommands of `motionbox`: each is a click command that bears its own name, in a module beside its kin."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress


class Place(click.Path):
    """A path of this machine, which `exists` has looked at, or the URL of a prefix of a bucket; that is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what `open_root` makes of it."""
        from motionbox.inputs.data_root import ListedPath, open_root

        place = open_root(value)
        if self.exists and not isinstance(place, ListedPath):
            super().convert(value, param, ctx)
        return place


class FiniteRange(click.FloatRange):
    """A range of finite numbers: click's own lets `nan` pass, which is neither below nor above anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; refuse one that is out of the range, infinite or none at all."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def progress_bar() -> Progress:
    """Return a bar for a terminal, which shows nothing elsewhere or with --quiet."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    shown = console.is_terminal and logging.getLogger(__name__).isEnabledFor(logging.INFO)
    return Progress(console=console, transient=True, disable=not shown)
