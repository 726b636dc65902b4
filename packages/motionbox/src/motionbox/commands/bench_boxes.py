"""`motionbox bench-boxes`: presets, and the steps of `tuned`, against annotated boxes."""

from __future__ import annotations

from pathlib import Path

import click

from motionbox.config import FLOW_METHODS, preset_names
from motionbox.errors import ExitCode, InputError

EPILOG = """\b
Examples:
  motionbox bench-boxes --synthetic 60 --seed 7
  motionbox bench-boxes --ablation --data-root clips --boxes boxes.json"""


@click.command(help="Compare presets, or the steps of `tuned`, on clips with annotated boxes.", epilog=EPILOG)
@click.option(
    "--data-root", type=click.Path(path_type=Path), help="Folder of annotated videos or frame folders.  [generated]"
)
@click.option(
    "--boxes",
    "boxes_file",
    type=click.Path(path_type=Path),
    help="Their boxes: JSON, Something-Else form.  [generated]",
)
@click.option("--frame-fps", type=click.FloatRange(min=0, min_open=True), default=12.0)
@click.option("--synthetic", type=click.IntRange(min=1), default=36, help="Else: clips to generate.")
@click.option("--seed", type=click.IntRange(min=0), default=3, help="Seed of the generated clips.")
@click.option("--still-camera", is_flag=True, help="Generate without camera motion.")
@click.option("--preset", "presets", multiple=True, type=click.Choice(preset_names()), help="[all]")
@click.option("--ablation", is_flag=True, help="Compare the steps of `tuned` instead of presets.")
@click.option("--flow", type=click.Choice(tuple(FLOW_METHODS)), default="dis")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a value in every config.")
@click.option("--per-clip", is_flag=True, help="Also list every clip.")
def command(
    data_root: Path | None,
    boxes_file: Path | None,
    frame_fps: float,
    synthetic: int,
    seed: int,
    still_camera: bool,
    presets: tuple[str, ...],
    ablation: bool,
    flow: str,
    settings: tuple[str, ...],
    per_clip: bool,
) -> int:
    """Run the command; see the options."""
    import tempfile

    import cv2

    from motionbox.commands.extract import parse_overrides
    from motionbox.extraction.memory import keep_freed_memory
    from motionbox.scoring.box_bench import (
        ablation_configs,
        find_clips,
        generate_clips,
        preset_configs,
        run_bench,
    )
    from motionbox.scoring.score_tables import clip_table, markdown_table

    if (data_root is None) != (boxes_file is None):
        raise InputError("--data-root and --boxes must be given together: clips and their annotated boxes")
    cv2.setNumThreads(1)
    keep_freed_memory()
    overrides = {"flow.method": flow, **parse_overrides(settings)}
    configs = ablation_configs(overrides) if ablation else preset_configs(presets or preset_names(), overrides)
    with tempfile.TemporaryDirectory(prefix="motionbox-bench-") as folder:
        if data_root is not None and boxes_file is not None:
            clips = find_clips(data_root, boxes_file, frame_fps=frame_fps)
        else:
            clips = generate_clips(Path(folder), synthetic, seed, camera_motion=not still_camera)
        rows = run_bench(clips, configs)
    click.echo(f"{len(clips)} clips · flow {flow}")
    click.echo(markdown_table(rows))
    if per_clip:
        click.echo(clip_table(rows))
    return ExitCode.OK
