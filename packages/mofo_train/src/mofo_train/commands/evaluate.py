"""`mofo-train evaluate`: the figures of a classifier on a test split, or the errors of a pretrained model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mofo_train.commands import complete_recipe
from motionbox.command_line import StorePlace
from motionbox.storage import StorePath

if TYPE_CHECKING:
    from mofo_train.evaluation.predictions import Predictions, SupervisionLevels

_LOG = logging.getLogger(__name__)

_CLIPS_SHOWN = 20

EPILOG = """\b
Examples:
  mofo-train evaluate --checkpoint runs/mca/best/step-000001200 --out runs/mca/test
  mofo-train evaluate --predictions runs/mca/test/predictions.parquet --out again"""


@click.command(name="evaluate", epilog=EPILOG)
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="Folder of a training, or `step-...` in it.  [none]"
)
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
    "--weights",
    "kind",
    type=click.Choice(["model", "ema"]),
    help="Which of a file that holds both: the model's, or their moving average.  [model]",
)
@click.option(
    "--recipe",
    shell_complete=complete_recipe,
    help="Recipe to test weights of other programs by.  [that of the checkpoint]",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One value, e.g. test.crops=1.")
@click.option("--store", type=StorePlace(), help="Store of motion boxes.  [stores/<dataset>]")
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
    kind: Any,
    recipe: str | None,
    overrides: tuple[str, ...],
    store: StorePath | None,
    data_root: Path | None,
    out: Path,
    submission: bool,
    sls: tuple[int, int, int],
) -> int:
    """Test a classifier: several views a clip, logits averaged; keeps every prediction.

    A checkpoint of pretraining: the error of its reconstruction inside and outside the motion box instead, on the
    validation split, beside what needs no model.

    Exit code 3 when clips could not be read or have no boxes: the figures are then of the others, and they are listed.
    """
    from mofo_train.errors import ConfigError, ExitCode
    from mofo_train.evaluation.predictions import SupervisionLevels, read_predictions
    from mofo_train.evaluation.reconstruction_error import error_lines, evaluate_pretraining
    from mofo_train.evaluation.report import check_report_folder
    from mofo_train.evaluation.run import evaluate_checkpoint, stage_of
    from mofo_train.models.weights import checkpoint_of
    from mofo_train.runtime.ranks import ranks_of_this_run

    if (checkpoint is None) == (predictions is None):
        raise ConfigError("one of --checkpoint and --predictions must be given, got both or neither")
    checkpoint = None if checkpoint is None else checkpoint_of(checkpoint)
    where: Any = {"recipe": recipe, "overrides": overrides, "store": store, "data_root": data_root}
    with ranks_of_this_run() as ranks:
        if checkpoint is not None and stage_of(checkpoint, recipe) == "pretrain":
            if submission or system != "videomae":
                raise ConfigError(f"--submission and --system are for classifiers, got {checkpoint} of a pretraining")
            report = evaluate_pretraining(checkpoint, ranks, out, **where)
            if not ranks.is_first:
                return ExitCode.OK
            click.echo("\n".join(error_lines(report)))
            return _list_missing(report["source"], out)
        if predictions is not None:
            answers = read_predictions(predictions)
            check_report_folder(out, answers.info["source"])
        else:
            assert checkpoint is not None  # noqa: S101
            answers = evaluate_checkpoint(checkpoint, ranks, out, system=system, kind=kind, **where)
        if not ranks.is_first:
            return ExitCode.OK
        return _write_results(answers, out, SupervisionLevels(*sls) if submission else None)


def _write_results(answers: Predictions, out: Path, levels: SupervisionLevels | None) -> int:
    """Write predictions, report and, with supervision levels, the submission; show them."""
    from mofo_train.data.labels import LabelSpace
    from mofo_train.errors import DataError
    from mofo_train.evaluation.predictions import write_predictions, write_submission
    from mofo_train.evaluation.report import describe, report_lines, write_report

    out.mkdir(parents=True, exist_ok=True)
    space, source = LabelSpace.from_json(answers.info["label_space"]), answers.info["source"]
    report = describe(answers, space) | {"source": source}
    write_predictions(answers, out / "predictions.parquet")
    write_report(answers, space, report, out)
    click.echo("\n".join(report_lines(report)))
    if levels is not None:
        if "action" not in space.heads and not {"verb", "noun"} <= set(space.heads):
            heads = ", ".join(space.heads)
            raise DataError(f"--submission must be of verbs and nouns or actions, got {heads}; the report is in {out}")
        sizes = {"num_verbs": space.num_verbs, "num_nouns": space.num_nouns}
        write_submission(answers, out / "submission.zip", levels, pairs=space.pairs, **sizes)
    uncertain = source.get("num_uncertain", 0)
    click.echo(
        f"{out}: {len(answers)} clips; boxes of {source['num_without_box']} stand in for missing ones"
        + (f"; {uncertain} uncertain ones gave way to the full frame" if uncertain else "")
    )
    return _list_missing(source, out)


def _list_missing(source: dict[str, Any], out: Path) -> int:
    """Name the clips that were not counted, and return the exit code."""
    from mofo_train.errors import ExitCode

    left_out = source.get("left_out", {})
    for title, clips in (("unreadable", source["unreadable"]), ("without boxes", left_out)):
        for clip_id, reason in list(clips.items())[:_CLIPS_SHOWN]:
            _LOG.warning("%s %s: %s", title, clip_id, reason)
        if len(clips) > _CLIPS_SHOWN:
            _LOG.warning("%s: %d more, see %s", title, len(clips) - _CLIPS_SHOWN, out / "report.json")
    return ExitCode.FAILED_CLIPS if source["unreadable"] or left_out else ExitCode.OK
