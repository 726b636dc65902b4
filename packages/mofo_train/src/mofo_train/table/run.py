"""Table 1 and the ablations: every row pretrained, finetuned and tested with every seed, resumable at any point.

A stage's folder holds `result.json` with the stage's fingerprint: recipe, store and the fingerprint of the stage that
it starts from. It is skipped when that is there and the same, resumed when it is not, and refused when it differs.
Several processes may work on one folder: each takes a stage that no other has locked and whose source is finished.
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mofo_train.config import PretrainConfig
from mofo_train.data.labels import LabelSpace
from mofo_train.data.reader import ClipCache, ClipReader
from mofo_train.data.sources import open_clips
from mofo_train.data.splits import describe_folds, groups_of
from mofo_train.evaluation.predictions import read_predictions, write_predictions
from mofo_train.evaluation.report import describe, right_answers, true_classes, write_report
from mofo_train.evaluation.run import predict
from mofo_train.finetune_config import FinetuneConfig
from mofo_train.runtime.ranks import Ranks
from mofo_train.table.cited import CITED_ROWS
from mofo_train.table.layout import Classes, MeasuredRow, Panel, Table
from mofo_train.table.power import Right
from mofo_train.table.recipe import TableConfig
from mofo_train.table.results import read_result, write_json
from mofo_train.table.stages import Stage, fold_tables, plan_stages
from mofo_train.training.finetuning import finetune
from mofo_train.training.pretraining import pretrain
from motionbox.storage import StorePath
from motionbox.store import open_store
from motionbox.wording import format_seconds

_LOG = logging.getLogger(__name__)

_WAIT_SECONDS = 1.0
_TELLING = 10  # classes above which the five best say something


class Trainings(NamedTuple):
    """What trains the stages of a table.

    Attributes:
        pretrain: As `training.pretraining.pretrain`.
        finetune_and_test: As `finetune_and_test`.
    """

    pretrain: Callable[[PretrainConfig, ClipReader, Path, Ranks], Path]
    finetune_and_test: Callable[..., dict[str, Any]]


def run_table(
    table: TableConfig,
    out: Path,
    ranks: Ranks,
    *,
    stores: Mapping[str, StorePath],
    data_root: Path | None,
    trainings: Trainings | None = None,
) -> Table:
    """Run what is missing of a table and write it.

    Args:
        table: The recipe, at its profile.
        out: Folder of all stages and of the table.
        ranks: This process among all.
        stores: Preset -> motion boxes; must exist, see `generate_data`.
        data_root: Folder of the videos; None = that of the store.
        trainings: What trains; None = this package's.

    Raises:
        CheckpointError: `out` holds stages of other recipes or another store; nothing is overwritten.
        Interrupted: Stopped and saved; the same command resumes.
    """
    stages = plan_stages(table)
    run = _TableRun(out, ranks, stores, data_root, trainings or Trainings(pretrain, finetune_and_test))
    pending = list(enumerate(stages, start=1))
    while pending:
        left = len(pending)
        for entry in list(pending):
            place, stage = entry
            with _numbered(f"[{place}/{len(stages)}]"):
                if run.work_on(stage):
                    pending.remove(entry)
        if len(pending) == left:
            time.sleep(_WAIT_SECONDS)  # the rest is in other processes' hands
    return _collect(table, out, stages, run.results, ranks, stores)


@contextmanager
def _numbered(label: str) -> Iterator[None]:
    """Have every message of the training shown behind a label meanwhile; several processes may share a terminal."""

    def prefix(record: logging.LogRecord) -> bool:
        if not hasattr(record, "stage_label"):  # several handlers share one record
            record.stage_label = label
            record.msg = f"{label} {record.msg}"
        return True

    shown_by = logging.getLogger("mofo_train").handlers
    for handler in shown_by:
        handler.addFilter(prefix)
    try:
        yield
    finally:
        for handler in shown_by:
            handler.removeFilter(prefix)


@dataclass
class _TableRun:
    """One process at work on a table's stages."""

    out: Path
    ranks: Ranks
    stores: Mapping[str, StorePath]
    data_root: Path | None
    trainings: Trainings
    readers: dict[str, ClipReader] = field(default_factory=dict)
    caches: dict[str, ClipCache] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def work_on(self, stage: Stage) -> bool:
        """Finish a stage, or find it finished; False while it has to wait for another stage or process."""
        if stage.source is not None and stage.source.key not in self.results:
            return False
        training = self._reader(stage)
        folder, fingerprint = self.out / stage.key, stage.fingerprint(training.content_id())
        with _lock(self.out / "locks" / stage.key, self.ranks) as mine:
            if not mine:
                return False
            result = self.ranks.gather(read_result(folder, fingerprint))[0]
            if result is None:
                _LOG.info(stage.key)
                started = time.perf_counter()
                result = self._train(stage, training, folder)
                result |= {"fingerprint": fingerprint, "wall_seconds": time.perf_counter() - started}
                if self.ranks.is_first:
                    write_json(folder / "result.json", result)
            else:
                _LOG.info("%s: done before", stage.key)
        self.results[stage.key] = result
        return True

    def _train(self, stage: Stage, training: ClipReader, folder: Path) -> dict[str, Any]:
        if isinstance(stage.config, PretrainConfig):
            return {"checkpoint": str(self.trainings.pretrain(stage.config, training, folder, self.ranks))}
        test = self._reader(stage, stage.config.test.split)
        train = self.trainings.finetune_and_test
        return train(stage, stage.config, training, test, self.results, folder, self.ranks)

    def _reader(self, stage: Stage, test_split: str | None = None) -> ClipReader:
        data, guidance = stage.config.data, stage.config.guidance
        key = f"{stage.preset} {data.model_dump_json()} {guidance.model_dump_json()} {test_split}"
        if key not in self.readers:
            store = self.stores[stage.preset]
            videos = f"{stage.preset} {data.short_side_px}"
            cache = self.caches.setdefault(videos, ClipCache(data.cache_gib)) if data.cache_gib else None
            self.readers[key] = open_clips(
                data, store, self.data_root, guidance=guidance, test_split=test_split, cache=cache
            )
        return self.readers[key]


@contextmanager
def _lock(path: Path, ranks: Ranks) -> Iterator[bool]:
    """Hold a stage; False where another process does. However this process ends, the system lets go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        mine = True
        if ranks.is_first:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                mine = False
        yield ranks.gather(mine)[0]


def finetune_and_test(
    stage: Stage,
    config: FinetuneConfig,
    training: ClipReader,
    test: ClipReader,
    results: dict[str, dict[str, Any]],
    folder: Path,
    ranks: Ranks,
) -> dict[str, Any]:
    """Finetune from what a stage starts from and predict the test clips.

    Args:
        stage: The stage.
        config: Its recipe.
        training: Clips to learn from.
        test: Clips to predict.
        results: Results of the stages before, by key.
        folder: Where checkpoints, log and predictions go.
        ranks: This process among all.

    Returns:
        What `result.json` says of it: the checkpoint, the table's figures, how many clips were tested and how.
    """
    if stage.source is not None:
        init = Path(results[stage.source.key]["checkpoint"]) / "model.safetensors"
        config = config.model_copy(update={"model": config.model.model_copy(update={"init": init})})
    best = finetune(config, training, folder, ranks)
    predictions = predict(best, config, None, test, ranks)
    space = LabelSpace.from_json(predictions.info["label_space"])
    report = describe(predictions, space)
    if ranks.is_first:
        write_predictions(predictions, folder / "predictions.parquet")
        write_report(predictions, space, report, folder)
    values = headline(report, {head: values.shape[1] for head, values in predictions.logits.items()})
    _LOG.info(f"{stage.key}: " + "  ".join(f"{metric} {value:.1f}" for metric, value in values.items()))
    source = predictions.info["source"]
    return {
        "checkpoint": str(best),
        "values": values,
        "num_test_clips": report["num_clips"],
        "num_unreadable": len(source["unreadable"]),
        "num_without_box": source["num_without_box"],
    }


def headline(report: dict[str, Any], num_classes: Mapping[str, int]) -> dict[str, float]:
    """Pick the table's figures from a report, per cent; the five best of ten classes or fewer say little.

    Args:
        report: As `evaluation.report.describe` makes it.
        num_classes: Head -> its classes.
    """
    if "verb_noun" in report:
        overall = report["verb_noun"]["overall"]
        return {f"{kind}_top1": 100 * overall[kind]["top1"] for kind in ("verb", "noun", "action")}
    return {
        f"{head}_{k}": 100 * values[k]
        for head, values in report["heads"].items()
        for k in (("top1", "top5") if num_classes[head] > _TELLING else ("top1",))
        if values
    }


class _Answers(NamedTuple):
    """What is known of a row's single test clips; all empty without files.

    Attributes:
        right: Metric -> which of them each seed answered rightly, bool (seeds, clips).
        clip_ids: Which clips these are.
        classes: Metric -> their classes.
    """

    right: dict[str, Right]
    clip_ids: tuple[str, ...]
    classes: dict[str, Classes]


def _answers(folders: list[Path]) -> _Answers:
    """Read the predictions of a row's seeds."""
    paths = [folder / "predictions.parquet" for folder in folders]
    if not all(path.exists() for path in paths):
        return _Answers({}, (), {})
    found = [read_predictions(path) for path in paths]
    spaces = [LabelSpace.from_json(one.info["label_space"]) for one in found]
    right = [right_answers(one, space) for one, space in zip(found, spaces, strict=True)]
    stacked = {metric: np.stack([one[metric] for one in right]) for metric in right[0]}
    return _Answers(stacked, found[0].clip_ids, true_classes(found[0], spaces[0]))


def _what_was_kept(stages: list[Stage]) -> str:
    """Say which weights are tested."""
    shares = {stage.config.selection.share for stage in stages if isinstance(stage.config, FinetuneConfig)}
    if shares == {0.0}:
        return "the last weights are tested; nothing is chosen, neither on held-out clips nor on the test split"
    return "weights chosen on clips held out of the training split; the test split has no say"


def _collect(
    table: TableConfig,
    out: Path,
    stages: list[Stage],
    results: dict[str, dict[str, Any]],
    ranks: Ranks,
    stores: Mapping[str, StorePath],
) -> Table:
    @cache
    def groups(preset: str) -> dict[str, str]:
        """Return the group of each clip, by its id."""
        clips = open_store(stores[preset]).clips()
        return dict(zip(clips.column("clip_id").to_pylist(), groups_of(clips), strict=True))

    panels = []
    for setting in table.settings:
        rows, classes = [], {}
        for row in filter(setting.has, table.rows):
            own = [stage for stage in stages if (stage.row, stage.setting) == (row.name, setting.name)]
            metrics = results[own[0].key]["values"]
            values = {metric: [results[stage.key]["values"][metric] for stage in own] for metric in metrics}
            answers = _answers([out / stage.key for stage in own])
            of_clips = tuple(groups(row.preset)[clip_id] for clip_id in answers.clip_ids)
            rows.append(MeasuredRow(row.name, row.title, values, answers.right, of_clips))
            classes = answers.classes
        panels.append(Panel(setting.title, tuple(rows), classes))
    tested = next(result for result in results.values() if "values" in result)
    seconds = sum(result["wall_seconds"] for result in results.values())
    notes = (
        f"seeds {', '.join(map(str, range(table.seeds)))}; {tested['num_test_clips']} test clips, of "
        f"{tested['num_without_box']} the centre stands in for the box, {tested['num_unreadable']} unreadable",
        _what_was_kept(stages),
        f"all stages together took {format_seconds(seconds)}, each on {ranks.world_size} x {ranks.device.type}",
    )
    cited = CITED_ROWS if table.dataset in ("ssv2", "epic100") else ()
    metrics = tuple(panels[0].rows[0].values)
    shown = tuple(row for row in cited if any(row.figure(metric) is not None for metric in metrics))
    return Table(table.title, metrics, tuple(panels), table.baseline, shown, notes)


def run_folds(
    table: TableConfig,
    out: Path,
    ranks: Ranks,
    *,
    stores: Mapping[str, StorePath],
    data_root: Path | None,
) -> Table:
    """Run what is missing of a table, fold after fold, and join them; without folds, `run_table`.

    Args:
        table: The recipe, at its profile.
        out: Folder of the table; each fold has one of its own below.
        ranks: As in `run_table`, as the following.
        stores: Preset -> motion boxes.
        data_root: Folder of the videos; None = that of the store.

    Raises:
        MofoTrainError: As in `run_table`.
    """
    parts = []
    for name, part in fold_tables(table):
        if name:
            _LOG.info("%s, of %d", name, table.folds)
        parts.append(run_table(part, out / name, ranks, stores=stores, data_root=data_root))
    if table.folds is None:
        return parts[0]
    clips = open_store(stores[table.rows[0].preset]).clips()
    return join_folds(table, parts, describe_folds(clips, table.folds))


def join_folds(table: TableConfig, parts: Sequence[Table], clips: Sequence[str] = ()) -> Table:
    """Join the tables of all folds: a value is the share of all clips that a seed gets right, each tested once.

    Args:
        table: The recipe.
        parts: The folds' tables.
        clips: What to say of the clips, a line each.

    Raises:
        ValueError: A part lacks the answers to single clips.
    """
    panels = []
    for place, panel in enumerate(parts[0].panels):
        rows = []
        for row in panel.rows:
            found = [own for part in parts for own in part.panels[place].rows if own.name == row.name]
            if any(not own.right for own in found):
                raise ValueError(f"right must be known for every clip, got none for row {row.name!r}")
            groups = tuple(chain.from_iterable(own.groups for own in found))
            right = {metric: np.concatenate([own.right[metric] for own in found], axis=1) for metric in row.right}
            values = {metric: (100 * own.mean(1)).tolist() for metric, own in right.items()}
            rows.append(MeasuredRow(row.name, row.title, values, right, groups))
        classes = {
            metric: np.concatenate([part.panels[place].classes[metric] for part in parts]) for metric in panel.classes
        }
        panels.append(Panel(panel.title, tuple(rows), classes))
    num_clips = next(iter(panels[0].rows[0].right.values())).shape[1]
    notes = [
        f"{table.folds} folds, {table.seeds} {'seed' if table.seeds == 1 else 'seeds'}; each of {num_clips} clips is "
        "tested once a seed, by a model that saw neither it nor any clip of its group, in no stage",
        *clips,
        *parts[0].notes[1:-1],
        *(f"fold {fold}: {'; '.join((part.notes[0], part.notes[-1]))}" for fold, part in enumerate(parts)),
    ]
    return replace(parts[0], panels=tuple(panels), notes=tuple(notes))
