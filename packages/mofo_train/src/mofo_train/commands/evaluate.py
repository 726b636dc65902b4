"""`mofo-train evaluate`: the figures of a classifier on a test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mofo_train.commands import complete_recipe

EPILOG = """\b
Examples:
  mofo-train evaluate --checkpoint runs/mca/best/step-000001200 --out runs/mca/test
  mofo-train evaluate --predictions runs/mca/test/predictions.parquet --out again"""


@click.command(name="evaluate", epilog=EPILOG)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Folder `best/step-...` of a finetuning.  [none]")
@click.option(
    "--predictions", type=click.Path(path_type=Path), help="Recompute from this predictions.parquet instead.  [none]"
)
@click.option(
    "--system",
    type=click.Choice(["videomae", "st_mae", "omnimae", "omnivore", "bevt"]),
    default="videomae",
    help="Layout of the weights; videomae: VideoMAE's, MOFO's, Hugging Face's and ours.",
)
@click.option(
    "--recipe",
    shell_complete=complete_recipe,
    help="Recipe to test weights of other programs by.  [that of the checkpoint]",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One value, e.g. test.crops=1.")
@click.option("--store", type=click.Path(path_type=Path), help="Store of motion boxes.  [stores/<dataset>]")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the videos.  [that of the store]")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for predictions and report.")
@click.option("--submission", is_flag=True, help="Also write EPIC-100's submission.zip.")
@click.option(
    "--sls",
    nargs=3,
    type=click.IntRange(0, 5),
    default=(4, 3, 3),
    metavar="PT TL TD",
    help="Supervision levels of the submission: pretraining, training labels, training data.",
)
def command(
    checkpoint: Path | None,
    predictions: Path | None,
    system: Any,
    recipe: str | None,
    overrides: tuple[str, ...],
    store: Path | None,
    data_root: Path | None,
    out: Path,
    submission: bool,
    sls: tuple[int, int, int],
) -> int:
    """Test a classifier: several views a clip, logits averaged; keeps every prediction.

    Exit code 3 when clips could not be read: the figures are then of the others, and the clips are listed.
    """
    from mofo_train.distributed import ranks_of_this_run
    from mofo_train.errors import ConfigError, ExitCode
    from mofo_train.evaluate import describe, show_report, write_report
    from mofo_train.labels import LabelSpace
    from mofo_train.predictions import SupervisionLevels, read_predictions, write_predictions, write_submission
    from mofo_train.testing import evaluate_checkpoint

    if (checkpoint is None) == (predictions is None):
        raise ConfigError("one of --checkpoint and --predictions must be given, got both or neither")
    with ranks_of_this_run() as ranks:
        if predictions is not None:
            answers = read_predictions(predictions)
        else:
            assert checkpoint is not None  # noqa: S101
            answers = evaluate_checkpoint(
                checkpoint,
                ranks,
                system=system,
                recipe=recipe,
                overrides=overrides,
                store=store,
                data_root=data_root,
            )
        if not ranks.is_first:
            return ExitCode.OK
        out.mkdir(parents=True, exist_ok=True)
        space = LabelSpace.from_json(answers.info["label_space"])
        report = describe(answers, space) | {"source": answers.info["source"]}
        write_predictions(answers, out / "predictions.parquet")
        write_report(answers, space, report, out)
        show_report(report, click.echo)
        if submission:
            levels = SupervisionLevels(*sls)
            sizes = {"num_verbs": space.num_verbs, "num_nouns": space.num_nouns}
            write_submission(answers, out / "submission.zip", levels, pairs=space.pairs, **sizes)
        source = answers.info["source"]
        click.echo(f"{out}: {len(answers)} clips; boxes of {source['num_without_box']} stand in for missing ones")
        for clip_id, reason in source["unreadable"].items():
            click.echo(f"unreadable {clip_id}: {reason}", err=True)
        return ExitCode.FAILED_CLIPS if source["unreadable"] or source["num_without_boxes_in_store"] else ExitCode.OK
