"""One module per subcommand of `mofo-train`; each exposes a click command named `command`."""

from __future__ import annotations

import click


def complete_recipe(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Return the package's recipes that begin as typed, for the shell's completion."""
    from mofo_train.config import recipe_names

    return [name for name in recipe_names() if name.startswith(typed)]
