"""`motionbox extract`: from a data set to motion boxes in a store."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from motionbox.command_line import StorePlace
from motionbox.commands import FiniteRange, Place
from motionbox.config import DEFAULT_PRESET, FLOW_METHODS, ExtractConfig, FramesConfig, load_config, preset_names
from motionbox.errors import ExitCode, InputError, Interrupted, StoreError
from motionbox.inputs import DATASETS
from motionbox.inputs.data_root import DataRoot, open_root
from motionbox.settings import parse_overrides
from motionbox.storage.local_cache import DEFAULT_SCRATCH_GIB
from motionbox.wording import format_seconds

if TYPE_CHECKING:
    from motionbox.extraction.drive import EngineOptions
    from motionbox.extraction.executors import Executor
    from motionbox.storage import StorePath
    from motionbox.store.writing.runs import Run, RunInputs

_LOG = logging.getLogger(__name__)

_OWN_DATASETS = ("synthetic", "metaworld", "folder")  # nothing to compare them with: only what they lack is told
_NUM_LISTED = 20
_NUM_NAMED = 5


EPILOG = """\b
Examples:
  motionbox extract --data-root videos --store stores/videos
  motionbox extract --dataset ssv2 --preset tuned --workers 8 --clips h264"""


@click.command(
    help="Compute the motion boxes of a data set and keep them in a store; the same command resumes.", epilog=EPILOG
)
@click.option("--dataset", type=click.Choice(tuple(DATASETS)), default="folder", help="Kind of data set.")
@click.option("--data-root", type=Place(), help="Its directory or URL, or one video.  [data/<dataset>]")
@click.option("--store", type=StorePlace(), help="The store, or its URL, e.g. s3://b/x.  [stores/<dataset>]")
@click.option(
    "--spans", type=click.Choice(["annotated", "all"]), help="Process annotated segments or whole videos.  [annotated]"
)
@click.option("--split", help="Only this split of the data set.  [all]")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many clips.  [all]")
@click.option(
    "--frame-fps",
    type=FiniteRange(0, min_open=True),
    help="Rate of frame folders.  [30, or the data set's]",
)
@click.option(
    "--allow-missing", is_flag=True, help="Go on without the videos that are not there; they fail as missing."
)
@click.option(
    "--preset",
    default=DEFAULT_PRESET,
    help=f"One of {', '.join(preset_names())}.",
    shell_complete=lambda _context, _parameter, typed: [name for name in preset_names() if name.startswith(typed)],
)
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="TOML file on top of the preset.  [none]"
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One value, e.g. motion.window=8.")
@click.option("--flow", type=click.Choice(tuple(FLOW_METHODS)), help="Flow method.  [the preset's]")
@click.option(
    "--save", type=click.Choice(["flow"]), multiple=True, help="Keep the flow too: float16, or as store.flow says."
)
@click.option(
    "--backend", type=click.Choice(["auto", "numba", "cuda", "opencv"]), default="auto", help="What computes the flow."
)
@click.option(
    "--clips",
    is_flag=False,
    flag_value="h264",
    type=click.Choice(["none", "h264", "jpeg"]),
    help="Keep the frames in colour for training, short side 256.  [h264 where no form is named]",
)
@click.option("--workers", type=click.IntRange(min=0), help="Worker processes; 0: in this process.  [all cores]")
@click.option("--executor", type=click.Choice(["ray", "serial"]), default="ray", help="serial: in this process.")
@click.option("--gpus", type=click.IntRange(min=0), default=0, help="GPUs that work beside the CPU workers.")
@click.option("--ray-address", help="Use this Ray cluster, e.g. auto or ray://head:10001.  [none: this machine]")
@click.option(
    "--scratch-gib",
    type=FiniteRange(0, min_open=True),
    default=DEFAULT_SCRATCH_GIB,
    help="Room on each machine for videos of a bucket.",
)
@click.option("--retry-failed", is_flag=True, help="Do failed, quarantined and partly read videos again.")
@click.option("--new-run", is_flag=True, help="Start another run where inputs or parameters have changed.")
@click.option("--force", is_flag=True, help="Go on although another process works on the store.")
def extract(**options: Any) -> int:
    """Run the command; see the options."""
    return run_extraction(**options)


def run_extraction(
    *,
    dataset: str,
    data_root: DataRoot | None,
    store: StorePath | None,
    split: str | None,
    limit: int | None,
    spans: str | None,
    preset: str,
    config_path: Path | None,
    overrides: tuple[str, ...],
    flow: str | None,
    save: tuple[str, ...],
    clips: str | None,
    backend: str,
    workers: int | None,
    executor: str,
    gpus: int,
    ray_address: str | None,
    new_run: bool,
    force: bool,
    allow_missing: bool = False,
    frame_fps: float | None = None,
    retry_failed: bool = False,
    scratch_gib: float = DEFAULT_SCRATCH_GIB,
) -> int:
    """Extract a data set; returns the exit code.

    Raises:
        MotionBoxError: Missing input, bad configuration, a store that cannot be used, or an interruption.
    """
    from motionbox.extraction.drive import EngineOptions
    from motionbox.store.writing.lock import store_lock
    from motionbox.store.writing.runs import prepare_store

    values = parse_overrides(overrides)
    if flow is not None:
        values["flow.method"] = flow
    if spans is not None:
        values["frames.spans"] = spans
    if clips is not None:
        values["store.clips"] = clips
    config = load_config(preset, config_path, values)
    if "flow" in save and config.store.flow == "none":
        config = load_config(preset, config_path, values | {"store.flow": "float16"})
    _check_backend(config.flow.method, backend)
    root = data_root or open_root(os.environ.get("MOTIONBOX_DATA", "data")) / dataset
    manifest = _manifest(dataset, root, split, limit, allow_missing=allow_missing, frame_fps=frame_fps)
    store = store or Path("stores") / dataset
    prepare_store(store)
    config = _settle_spans(config, manifest)
    try:
        with store_lock(store, force=force) as lease:
            run = _run(store, dataset, root, manifest, config, new_run=new_run, retry=retry_failed)
            num_workers = 0 if executor == "serial" else _num_workers(workers, ray_address)
            lost = None if lease is None else lease.lost
            options = EngineOptions(backend=backend, scratch_gib=scratch_gib, lost=lost)
            return _drive(store, run, _executor(num_workers, ray_address, gpus), options)
    except OSError as error:
        if isinstance(store, Path):
            raise
        raise _bucket_failed(store, error) from None


def _check_backend(method: str, backend: str) -> None:
    from motionbox.flow import resolve_backend

    resolve_backend(method, backend)


def _num_workers(wanted: int | None, ray_address: str | None) -> int:
    """Return how many workers to ask for: at most one per core of this machine; a cluster knows its own bound."""
    if ray_address is not None:
        return wanted or 0
    cores = len(os.sched_getaffinity(0))
    if wanted is not None and wanted > cores:
        _LOG.info(f"--workers {wanted}: this command may use {cores} cores here, so {cores} workers start")
    return cores if wanted is None else min(wanted, cores)


def _manifest(
    dataset: str, root: DataRoot, split: str | None, limit: int | None, *, allow_missing: bool, frame_fps: float | None
) -> Any:
    """Read the clips to work on; say first what the data on disk lacks."""
    from motionbox.inputs.data_check import check_data
    from motionbox.inputs.manifest import load_manifest
    from motionbox.inputs.schema import notes_of

    manifest = load_manifest(dataset, root, split, require_media=False, frame_fps=frame_fps)
    for note in notes_of(manifest):
        _LOG.info(note)
    manifest = manifest if limit is None else manifest.slice(0, limit)
    if manifest.num_rows == 0:
        raise InputError(f"data set {dataset} at {root} must have at least one clip, got none")
    report = check_data(dataset, root, manifest)
    if report.missing.paths or dataset not in _OWN_DATASETS:
        _LOG.info("\n".join(report.lines))
    report.require(allow_missing=allow_missing)
    return manifest


def _settle_spans(config: ExtractConfig, manifest: Any) -> ExtractConfig:
    """Return the config with the spans' defaults where every clip is a whole video: the other values do the same."""
    if manifest.column("start_seconds").null_count + manifest.column("stop_seconds").null_count < 2 * manifest.num_rows:
        return config
    defaults = {name: FramesConfig.model_fields[name].default for name in ("spans", "span_margin_seconds")}
    return config.model_copy(update={"frames": config.frames.model_copy(update=defaults)})


def _run(
    store: StorePath, dataset: str, root: DataRoot, manifest: Any, config: ExtractConfig, *, new_run: bool, retry: bool
) -> Run:
    from motionbox.extraction.plan import plan_units, scan_inputs
    from motionbox.store.writing.runs import RunInputs, open_or_create_run
    from motionbox.video.sources import HintProber

    inputs = scan_inputs(root, manifest.column("path").to_pylist())
    parts = RunInputs(dataset, root, manifest, inputs, config)
    if retry:
        _retry(store, parts)
    spans, margin = config.frames.spans, config.frames.span_margin_seconds
    with HintProber() as probe:
        return open_or_create_run(
            store,
            parts,
            lambda: plan_units(manifest, inputs, root, probe, spans=spans, margin_seconds=margin),
            new_run=new_run,
        )


def _retry(store: StorePath, inputs: RunInputs) -> None:
    from motionbox.store.writing.retry import retry_failed

    retry = retry_failed(store, inputs)
    if not retry.videos:
        _LOG.info("no video of this run has failed")
        return
    named = ", ".join(retry.videos[:_NUM_NAMED]) + (", ..." if len(retry.videos) > _NUM_NAMED else "")
    replaced = f", {retry.num_replaced:,} of their files replaced" if retry.num_replaced else ""
    _LOG.info(f"{len(retry.videos):,} videos in {retry.num_units:,} units are done again{replaced}: {named}")


def _bucket_failed(store: StorePath, error: OSError) -> Interrupted:
    """Return the end of a run whose bucket cannot be reached any more, or not with these rights."""
    what = error if error.filename is None else f"{error.filename}: {error.strerror}"
    return Interrupted(f"store {store} cannot be read or written: {what}; the same command goes on from here")


def _drive(store: StorePath, run: Run, executor: Executor, options: EngineOptions) -> int:
    from motionbox.extraction.drive import drive
    from motionbox.extraction.media.fetching import scratch_cache
    from motionbox.extraction.progress import create_reporter
    from motionbox.extraction.snapshot import make_snapshot
    from motionbox.extraction.time_spent import shares
    from motionbox.store.reuse.sibling_units import SiblingUnits

    try:
        counts = drive(run, executor, options, create_reporter())
    finally:
        executor.close()
        scratch_cache(options.scratch_gib).clear()
    try:
        make_snapshot(run)
        for name in SiblingUnits(run).carry_guidances(run):
            _LOG.info(f"guidance {name!r} is carried over")
    except OSError as error:
        raise Interrupted(f"store {store} cannot be written: {error}; the same command goes on from here") from None
    if counts.seconds_by_step:
        worked = format_seconds(sum(counts.seconds_by_step.values()))
        _LOG.info(f"extract: {worked} of work: {shares(counts.seconds_by_step)}")
    return _summarise(store, run)


def _executor(num_workers: int, ray_address: str | None, gpus: int) -> Executor:
    from motionbox.extraction.executors import SerialExecutor, start_ray_executor

    if num_workers == 0 and ray_address is None:
        if gpus:
            raise InputError("--gpus needs Ray workers; leave --workers 0 and --executor serial out")
        return SerialExecutor()
    executor = start_ray_executor(num_workers=num_workers, address=ray_address, num_gpus=gpus)
    if executor.num_slots < num_workers:
        slots = executor.num_slots
        _LOG.info(f"--workers {num_workers}: the cluster has {slots} CPUs, so {slots} units run at once")
    return executor


def _summarise(store: StorePath, run: Run) -> int:
    """Print what the run gave, failures by name; return the exit code."""
    from motionbox.store import open_store

    with open_store(store, run=run.run_id) as opened:
        clips = opened.clips()
        frames = opened.info["num_frame_rows"]
        kept = opened.info.get("training_clips", {"form": "none"})
    statuses = clips.column("status").to_pylist()
    counts = {name: statuses.count(name) for name in ("ok", "partial", "no_motion", "failed")}
    videos = clips.column("video_id").to_pylist()
    broken = {video for video, status in zip(videos, statuses, strict=True) if status in ("failed", "partial")}
    click.echo(
        f"{len(statuses):,} clips, {frames:,} frame boxes in {store}: "
        + ", ".join(f"{count:,} {name}" for name, count in counts.items())
        + (f" ({len(broken):,} videos with errors)" if broken else "")
    )
    if kept["form"] != "none":
        click.echo(f"training clips ({kept['form']}): {kept['num_clips']:,}, {kept['num_bytes'] / 2**20:,.1f} MiB")
    bad = [
        (clip_id, status, reason)
        for clip_id, status, reason in zip(
            clips.column("clip_id").to_pylist(), statuses, clips.column("reason").to_pylist(), strict=True
        )
        if status in ("failed", "partial")
    ]
    for clip_id, status, reason in bad[:_NUM_LISTED]:
        click.echo(f"  {status:8} {clip_id}  {reason}")
    if len(bad) > _NUM_LISTED:
        click.echo(f"  ... and {len(bad) - _NUM_LISTED:,} more; see `motionbox status {store} --failed`")
    if clips.num_rows == 0:
        raise StoreError(f"store {store} has no finished clip; run the same command again")
    return ExitCode.FAILED_CLIPS if bad else ExitCode.OK
