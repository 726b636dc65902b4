"""`motionbox report`: one self-contained page about a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from motionbox.command_line import StorePlace
from motionbox.commands import Place, progress_bar
from motionbox.errors import InputError
from motionbox.output import whole_file
from motionbox.storage.paths import StorePath

if TYPE_CHECKING:
    from motionbox.inputs.data_root import DataRoot

EPILOG = """\b
Example:
  motionbox report stores/videos -o report.html"""


@click.command(
    help="Write one self-contained HTML page about a store: totals, failures, distributions, gallery.", epilog=EPILOG
)
@click.argument("store", type=StorePlace())
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The .html file.")
@click.option("--run", help="Run id or preset, where the store has several runs.  [the newest]")
@click.option("--previews", default=48, type=click.IntRange(0, 2000), help="Clips with a preview.")
@click.option(
    "--data-root", type=Place(exists=True), help="Where the videos are now, a path or URL.  [as at extraction]"
)
def report(store: StorePath, out: Path, run: str | None, previews: int, data_root: DataRoot | None) -> None:
    """Run the command; see the options."""
    from motionbox.extraction.media.fetching import clear_scratch
    from motionbox.pictures.report import ReportOptions, build_report
    from motionbox.store import open_store

    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"output file must end in .html, got {str(out)!r}")
    options = ReportOptions(num_previews=previews, data_root=data_root)
    with progress_bar() as bar, open_store(store, run=run) as opened:
        task = bar.add_task("Drawing previews", total=previews)
        try:
            page = build_report(
                opened, options, progress=lambda done, total: bar.update(task, completed=done, total=total)
            )
        finally:
            clear_scratch()
    data = page.encode("utf-8", "backslashreplace")
    with whole_file(out) as unfinished:
        unfinished.write_bytes(data)
    click.echo(f"{out}: {len(data) / 1e6:.1f} MB, {opened.info['num_clips']:,} clips")
