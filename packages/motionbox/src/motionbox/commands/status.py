"""`motionbox status`: what a store holds and how far it is, also while another process works on it."""

from __future__ import annotations

import socket
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from motionbox.command_line import StorePlace
from motionbox.errors import ExitCode
from motionbox.wording import format_seconds

if TYPE_CHECKING:
    from motionbox.storage import StorePath
    from motionbox.store.layout import RunPaths

_FRESH_SECONDS = 30.0


EPILOG = """\b
Example:
  motionbox status stores/videos --failed"""


@click.command(
    help="Show what a store holds: units, clips, failures by reason, and progress while a run is under way.",
    epilog=EPILOG,
)
@click.argument("store", type=StorePlace())
@click.option("--failed", is_flag=True, help="List every failed and partial clip.")
def status(store: StorePath, failed: bool) -> int:
    """Run the command; see the options."""
    from motionbox.store.layout import check_store, run_paths
    from motionbox.store.writing.lock import lock_holder

    info = check_store(store)
    holder = lock_holder(store)
    click.echo(f"store {store} · format {info['version']} · {'in use by ' + holder if holder else 'not in use'}")
    runs = run_paths(store)
    for paths in runs:
        _show_run(store, paths, holder, list_failed=failed)
    if not runs:
        click.echo("no run yet")
    return ExitCode.OK


def _show_run(store: StorePath, paths: RunPaths, holder: str | None, *, list_failed: bool) -> None:
    from motionbox.store.writing.runs import load_run

    run = load_run(paths)
    created = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.info["created_unix"]))
    click.echo(f"run {run.run_id} · {run.info['dataset']} · preset {run.config.preset} · since {created}")
    done = len(paths.committed_units())
    num_units = run.info["num_units"]
    click.echo(f"  units   {done:,} of {num_units:,} committed")
    _show_progress(paths, holder)
    _show_faults(paths)
    if paths.snapshot_numbers():
        _show_snapshot(store, run.run_id, list_failed=list_failed)
        _show_guidances(paths)
    else:
        click.echo(f"  clips   no snapshot yet, of {run.info['num_clips']:,}")


def _show_guidances(paths: RunPaths) -> None:
    from motionbox.store.areas.guidance import guidance_names

    for name in guidance_names(paths):
        info = paths.guidance_info(name, paths.guidance_numbers(name)[-1])
        click.echo(f"  guided  by {name!r}: {info['num_clips']:,} clips, {info['num_frames']:,} frames, {info['made']}")


def _show_progress(paths: RunPaths, holder: str | None) -> None:
    """Show what the driving process last said, if it still drives; otherwise that it went before the end."""
    from motionbox.errors import StoreError
    from motionbox.store.layout import read_json

    try:
        progress = read_json(paths.progress)
    except StoreError:
        return
    if len(paths.committed_units()) >= progress["num_units"]:
        return
    if not _is_driven(progress, holder):
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(progress["updated_unix"]))
        now = "the same command resumes the run" if holder is None else "a process that has said nothing yet is at work"
        click.echo(f"  stopped, last heard of at {since} on {progress['host']}; {now}")
        return
    click.echo(
        f"  running {progress['done_clips']:,} of {progress['num_clips']:,} clips · "
        f"{progress['frames_per_second']:,.1f} frames/s · ETA {format_seconds(progress['eta_seconds'])} · "
        f"{len(progress['units_in_flight'])} units under way on {progress['host']}"
    )


def _is_driven(progress: dict[str, Any], holder: str | None) -> bool:
    """Tell whether the process that left the note is still there: on this machine its number says so.

    On another one the store's lock does, and where the file system has no locks, how old the note is.
    """
    if progress["host"] == socket.gethostname():
        return Path(f"/proc/{progress['pid']}").exists() if Path("/proc").is_dir() else holder is not None
    return holder is not None or time.time() - progress["updated_unix"] < _FRESH_SECONDS


def _show_faults(paths: RunPaths) -> None:
    from motionbox.storage.paths import children
    from motionbox.store.writing.failures import recorded_faults

    faults = [fault for unit in children(paths.failures) for fault in recorded_faults(paths, unit.name)]
    if faults:
        counts = Counter(str(fault.reason) for fault in faults)
        click.echo("  faults  " + ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common()))


def _show_snapshot(store: StorePath, run_id: str, *, list_failed: bool) -> None:
    from motionbox.store import open_store

    with open_store(store, run=run_id) as opened:
        clips, info = opened.clips(), opened.info
    missing = info["num_clips_planned"] - info["num_clips"]
    counts = ", ".join(f"{count:,} {status}" for status, count in info["statuses"].items())
    tail = f", {missing:,} still to come" if missing else ""
    click.echo(f"  clips   {info['num_clips']:,} in snapshot {opened.snapshot}: {counts}{tail}")
    click.echo(f"  frames  {info['num_frame_rows']:,} frame boxes")
    for run_id, count in info.get("rows_of", {}).items():
        click.echo(f"  rows    of {count:,} units are those of run {run_id}")
    kept = info.get("training_clips", {"form": "none"})
    if kept["form"] != "none":
        click.echo(f"  colour  {kept['num_clips']:,} clips as {kept['form']}, {kept['num_bytes'] / 2**20:,.1f} MiB")
    reasons = Counter(reason.split(":")[0] for reason in clips.column("reason").to_pylist() if reason)
    for reason, count in reasons.most_common():
        click.echo(f"  reason  {count:,} {reason}")
    if list_failed:
        rows = clips.select(["clip_id", "status", "reason"]).to_pylist()
        for row in rows:
            if row["status"] in ("failed", "partial"):
                click.echo(f"  {row['status']:8} {row['clip_id']}  {row['reason']}")
