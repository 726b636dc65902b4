"""`motionbox export`: a store's boxes in other tools' forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from motionbox.errors import ExitCode

EPILOG = """\b
Example:
  motionbox export stores/ssv2 --format mofo-json --split train -o train.json"""


@click.command(help="Write a store's boxes as the MOFO authors' JSON, as CSV or as COCO JSON.", epilog=EPILOG)
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--format", "file_format", type=click.Choice(["mofo-json", "csv", "coco"]), required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--run", help="Run id or preset, where the store has several runs.  [the newest]")
@click.option("--split", help="Only this split of the data set.  [all]")
def command(store: Path, file_format: Any, out: Path, run: str | None, split: str | None) -> int:
    """Run the command; see the options."""
    from motionbox.store import open_store
    from motionbox.store.export import export_store

    with open_store(store, run=run) as opened:
        num_clips = export_store(opened, out, file_format, split=split)
        num_left_out = len(opened) - num_clips
    click.echo(f"{out}: {num_clips} clips" + (f" ({num_left_out} without boxes left out)" if num_left_out else ""))
    return ExitCode.OK
