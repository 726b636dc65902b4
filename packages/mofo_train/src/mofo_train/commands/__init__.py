"""One module per subcommand of `mofo-train`; each exposes a click command named `command`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mofo_train.runtime.ranks import Ranks


def complete_recipe(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Return the package's recipes that begin as typed, for the shell's completion."""
    from mofo_train.config import recipe_names

    return [name for name in recipe_names() if name.startswith(typed)]


def say_once(ranks: Ranks) -> Callable[[str], None]:
    """Return what shows a line to the user: in the first process only."""

    def say(line: str) -> None:
        if ranks.is_first:
            click.echo(line)

    return say
