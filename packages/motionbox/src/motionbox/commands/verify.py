"""`motionbox verify`: read a whole store again and compare it with its digests."""

from __future__ import annotations

from pathlib import Path

import click

from motionbox.errors import ExitCode

EPILOG = """\b
Example:
  motionbox verify stores/videos"""


@click.command(
    help="Read everything in a store again and compare it with the digests recorded when it was written.", epilog=EPILOG
)
@click.argument("store", type=click.Path(path_type=Path))
def command(store: Path) -> int:
    """Run the command; exit code 3 where something is damaged."""
    from motionbox.store.care.verify import verify_store

    checks = list(verify_store(store))
    problems = [check for check in checks if check.problem is not None]
    for check in problems:
        click.echo(f"damaged: {check.name}: {check.problem}")
    num_bytes = sum(check.num_bytes for check in checks)
    click.echo(
        f"{len(checks) - len(problems):,} of {len(checks):,} parts of {store} are as they were written, "
        f"{num_bytes / 1e6:,.1f} MB read"
    )
    if problems:
        click.echo(
            "remedy: delete the commit record (commits/<unit>.json) of each damaged unit and every damaged snapshot, "
            "then run the same `motionbox extract` again"
        )
    return ExitCode.FAILED_CLIPS if problems else ExitCode.OK
