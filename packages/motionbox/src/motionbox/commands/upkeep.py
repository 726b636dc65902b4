"""`motionbox verify` and `motionbox gc`: looking after a store."""

from __future__ import annotations

import click

from motionbox.command_line import StorePlace
from motionbox.errors import ExitCode
from motionbox.storage.paths import StorePath

_NUM_LISTED = 20

_VERIFY_EPILOG = """\b
Example:
  motionbox verify stores/videos"""

_GC_EPILOG = """\b
Examples:
  motionbox gc stores/videos
  motionbox gc stores/videos --delete --keep-snapshots 2"""


@click.command(
    help="Read everything in a store again and compare it with the digests recorded when it was written.",
    epilog=_VERIFY_EPILOG,
)
@click.argument("store", type=StorePlace())
def verify(store: StorePath) -> int:
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


@click.command(help="List what nothing in a store refers to; with --delete, remove it.", epilog=_GC_EPILOG)
@click.argument("store", type=StorePlace())
@click.option("--delete", is_flag=True, help="Remove it; without this nothing is touched.")
@click.option("--keep-snapshots", type=click.IntRange(min=1), default=1, help="Newest ones that stay.")
@click.option("--guidance", "guidances", multiple=True, help="A guidance that is not needed any more.  [all stay]")
@click.option("--run", "runs", multiple=True, help="A run that is not needed any more, by its id.  [all stay]")
def gc(store: StorePath, delete: bool, keep_snapshots: int, guidances: tuple[str, ...], runs: tuple[str, ...]) -> int:
    """Run the command; see the options."""
    from motionbox.store.care.garbage import find_garbage, remove
    from motionbox.store.layout import check_store
    from motionbox.store.writing.lock import store_lock

    check_store(store)
    with store_lock(store):
        garbage = find_garbage(store, keep_snapshots=keep_snapshots, drop_guidances=guidances, drop_runs=runs)
        for entry in garbage[:_NUM_LISTED]:
            name = str(entry.path).removeprefix(f"{store}/")
            click.echo(f"  {entry.num_bytes / 1e6:10,.2f} MB  {name}  ({entry.why})")
        if len(garbage) > _NUM_LISTED:
            click.echo(f"  ... and {len(garbage) - _NUM_LISTED:,} more")
        if delete:
            remove(garbage)
    total = sum(entry.num_bytes for entry in garbage)
    tail = "removed" if delete else "could be removed; add --delete to do it"
    click.echo(f"{len(garbage):,} things, {total / 1e6:,.2f} MB {tail}")
    return ExitCode.OK
