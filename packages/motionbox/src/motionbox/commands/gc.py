"""`motionbox gc`: remove what nothing in a store refers to."""

from __future__ import annotations

from pathlib import Path

import click

from motionbox.errors import ExitCode

_NUM_LISTED = 20


EPILOG = """\b
Examples:
  motionbox gc stores/videos
  motionbox gc stores/videos --delete --keep-snapshots 2"""


@click.command(help="List what nothing in a store refers to; with --delete, remove it.", epilog=EPILOG)
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--delete", is_flag=True, help="Remove it; without this nothing is touched.")
@click.option("--keep-snapshots", type=click.IntRange(min=1), default=1, help="Newest ones that stay.")
def command(store: Path, delete: bool, keep_snapshots: int) -> int:
    """Run the command; see the options."""
    from motionbox.store.care.garbage import find_garbage, remove
    from motionbox.store.layout import check_store
    from motionbox.store.writing.lock import store_lock

    check_store(store)
    with store_lock(store):
        garbage = find_garbage(store, keep_snapshots=keep_snapshots)
        for entry in garbage[:_NUM_LISTED]:
            click.echo(f"  {entry.num_bytes / 1e6:10,.2f} MB  {entry.path.relative_to(store)}  ({entry.why})")
        if len(garbage) > _NUM_LISTED:
            click.echo(f"  ... and {len(garbage) - _NUM_LISTED:,} more")
        if delete:
            remove(garbage)
    total = sum(entry.num_bytes for entry in garbage)
    tail = "removed" if delete else "could be removed; add --delete to do it"
    click.echo(f"{len(garbage):,} things, {total / 1e6:,.2f} MB {tail}")
    return ExitCode.OK
