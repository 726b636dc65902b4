"""Table 1 and the ablations: every row pretrained, finetuned and tested with every seed, resumable at any point.

A stage's folder holds `result.json` with the stage's fingerprint: recipe, store and the fingerprint of the stage that
it starts from. It is skipped when that is there and the same, resumed when it is not, and refused when it differs.
Several processes may work on one folder: each takes a stage that no other has locked and whose source is finished.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from mofo_train.cited import CITED_ROWS
from mofo_train.config import PretrainConfig, Section, config_digest, load_recipe
from mofo_train.data.dataset import ClipReader
from mofo_train.data.sources import open_clips
from mofo_train.distributed import Ranks
from mofo_train.errors import CheckpointError, DataError
from mofo_train.evaluate import describe, write_report
from mofo_train.finetune import finetune
from mofo_train.finetune_config import FinetuneConfig
from mofo_train.labels import LabelSpace
from mofo_train.predictions import write_predictions
from mofo_train.pretrain import pretrain
from mofo_train.stage import duration
from mofo_train.tables import MAX_SEEDS, MeasuredRow, Table
from mofo_train.testing import predict

Say = Callable[[str], None]
_WAIT_SECONDS = 1.0


class RowConfig(Section):
    """One row of a table.

    Attributes:
        name: Short name.
        title: For the reader.
        pretrain: Recipe of its pretraining; None = from scratch. Rows with equal pretraining share it.
        pretrain_set: Changes to that recipe.
        finetune: Recipe of its finetuning.
        finetune_set: Changes to that recipe.
        preset: Preset of the motion boxes (data set `synthetic`).
    """

    name: str = Field(pattern="^[a-z0-9_]+$")
    title: str
    pretrain: str | None = None
    pretrain_set: tuple[str, ...] = ()
    finetune: str
    finetune_set: tuple[str, ...] = ()
    preset: Literal["paper", "release", "tuned"] = "paper"


class ProfileConfig(Section):
    """A smaller version of a table, to see that it works.

    Attributes:
        seeds: Seeds.
        num_clips: Clips of the generated data set.
        pretrain_set: Changes to every pretraining recipe.
        finetune_set: Changes to every finetuning recipe.
    """

    seeds: int = Field(2, ge=1, le=MAX_SEEDS)
    num_clips: int = Field(24, ge=10)
    pretrain_set: tuple[str, ...] = ()
    finetune_set: tuple[str, ...] = ()


class TableConfig(Section):
    """A recipe of `mofo-train table1`.

    Attributes:
        title: Heading.
        dataset: Data set of all rows.
        seeds: Seeds of every row: 0, 1, ...
        num_clips: Clips that are generated for data set `synthetic`.
        camera_motion: Whether the camera of these clips moves.
        baseline: Row that the others are compared with.
        smoke: The profile `smoke`.
        rows: The rows.
    """

    stage: Literal["table"]
    title: str
    dataset: str
    seeds: int = Field(3, ge=1, le=MAX_SEEDS)
    num_clips: int = Field(200, ge=10)
    camera_motion: bool = True
    baseline: str
    smoke: ProfileConfig | None = None
    rows: tuple[RowConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rows_fit(self) -> TableConfig:
        names = [row.name for row in self.rows]
        if len(set(names)) != len(names) or self.baseline not in names:
            raise ValueError(f"rows must have different names, baseline {self.baseline!r} among them, got {names!r}")
        return self

    def at(self, profile: str) -> TableConfig:
        """Return the table at profile `full` or `smoke`."""
        if profile == "full":
            return self
        if self.smoke is None:
            raise DataError(f"profile must be full for dataset {self.dataset}, got {profile!r}")
        small = self.smoke
        rows = tuple(
            row.model_copy(
                update={
                    "pretrain_set": (*row.pretrain_set, *small.pretrain_set),
                    "finetune_set": (*row.finetune_set, *small.finetune_set),
                }
            )
            for row in self.rows
        )
        title = f"{self.title} (profile smoke: shows that every stage works, its figures mean nothing)"
        changes = {"title": title, "rows": rows, "seeds": small.seeds, "num_clips": small.num_clips}
        return self.model_copy(update=changes)


@dataclass(frozen=True)
class Stage:
    """One piece of work of one seed.

    Attributes:
        kind: `pretrain`, `finetune` (which tests what it trained).
        key: Folder below the table's.
        row: Row that it is of; empty for pretraining, which rows share.
        seed: Seed.
        config: Its recipe.
        preset: Preset of its motion boxes.
        source: The pretraining that it starts from.
    """

    kind: Literal["pretrain", "finetune"]
    key: str
    row: str
    seed: int
    config: PretrainConfig | FinetuneConfig
    preset: str
    source: Stage | None = None

    def fingerprint(self, data: str) -> str:
        """Return the SHA-256 of all that the result depends on; `data` names the store's content."""
        parts = [self.kind, config_digest(self.config), data]
        parts.append("" if self.source is None else self.source.fingerprint(data))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def plan_stages(table: TableConfig) -> list[Stage]:
    """List the stages of a table in order: every seed's pretrainings once, then its rows."""
    stages = []
    for seed in range(table.seeds):
        shared: dict[str, Stage] = {}
        for row in table.rows:
            source = None
            if row.pretrain is not None:
                config = load_recipe(PretrainConfig, row.pretrain, (*row.pretrain_set, f"seed={seed}"))
                key = f"pretrain-{row.pretrain}-{config_digest(config)[:8]}-{row.preset}"
                if key not in shared:
                    shared[key] = Stage("pretrain", key, "", seed, config, row.preset)
                    stages.append(shared[key])
                source = shared[key]
            tuned = load_recipe(FinetuneConfig, row.finetune, (*row.finetune_set, f"seed={seed}"))
            stages.append(Stage("finetune", f"row-{row.name}-seed-{seed}", row.name, seed, tuned, row.preset, source))
    return stages


def run_table(
    table: TableConfig,
    out: Path,
    ranks: Ranks,
    *,
    stores: Mapping[str, Path],
    data_root: Path | None,
    say: Say,
) -> Table:
    """Run what is missing of a table and write it.

    Args:
        table: The recipe, at its profile.
        out: Folder of all stages and of the table.
        ranks: This process among all.
        stores: Preset -> motion boxes; must exist, see `generate_data`.
        data_root: Folder of the videos; None = that of the store.
        say: Shows a line to the user.

    Raises:
        CheckpointError: `out` holds stages of other recipes or another store; nothing is overwritten.
        Interrupted: Stopped and saved; the same command resumes.
    """
    stages = plan_stages(table)
    run = _TableRun(out, ranks, stores, data_root)
    pending = list(enumerate(stages, start=1))
    while pending:
        left = len(pending)
        for entry in list(pending):
            place, stage = entry
            if run.work_on(stage, _numbered(say, f"[{place}/{len(stages)}]")):
                pending.remove(entry)
        if len(pending) == left:
            time.sleep(_WAIT_SECONDS)  # the rest is in other processes' hands
    return _collect(table, stages, run.results, ranks)


def _numbered(say: Say, label: str) -> Say:
    return lambda line: say(f"{label} {line}")


@dataclass
class _TableRun:
    """One process at work on a table's stages."""

    out: Path
    ranks: Ranks
    stores: Mapping[str, Path]
    data_root: Path | None
    readers: dict[str, ClipReader] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def work_on(self, stage: Stage, say: Say) -> bool:
        """Finish a stage, or find it finished; False while it has to wait for another stage or process."""
        if stage.source is not None and stage.source.key not in self.results:
            return False
        training = self._reader(stage, stage.config.data.split)
        folder, fingerprint = self.out / stage.key, stage.fingerprint(training.content_id())
        with _lock(self.out / "locks" / stage.key, self.ranks) as mine:
            if not mine:
                return False
            result = self.ranks.gather(read_result(folder, fingerprint))[0]
            if result is None:
                say(stage.key)
                started = time.perf_counter()
                result = self._train(stage, training, folder, say)
                result |= {"fingerprint": fingerprint, "wall_seconds": time.perf_counter() - started}
                if self.ranks.is_first:
                    _write_json(folder / "result.json", result)
            else:
                say(f"{stage.key}: done before")
        self.results[stage.key] = result
        return True

    def _train(self, stage: Stage, training: ClipReader, folder: Path, say: Say) -> dict[str, Any]:
        if isinstance(stage.config, PretrainConfig):
            return {"checkpoint": str(pretrain(stage.config, training, folder, self.ranks, say=say))}
        test = self._reader(stage, stage.config.test.split)
        return _finetune_and_test(stage, stage.config, training, test, self.results, folder, self.ranks, say)

    def _reader(self, stage: Stage, split: str | None) -> ClipReader:
        data = stage.config.data.model_copy(update={"split": split})
        key = f"{stage.preset} {data.model_dump_json()}"
        if key not in self.readers:
            self.readers[key] = open_clips(data, self.stores[stage.preset], self.data_root)
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


def _finetune_and_test(
    stage: Stage,
    config: FinetuneConfig,
    training: ClipReader,
    test: ClipReader,
    results: dict[str, dict[str, Any]],
    folder: Path,
    ranks: Ranks,
    say: Say,
) -> dict[str, Any]:
    if stage.source is not None:
        init = Path(results[stage.source.key]["checkpoint"]) / "model.safetensors"
        config = config.model_copy(update={"model": config.model.model_copy(update={"init": init})})
    best = finetune(config, training, folder, ranks, say=say)
    predictions = predict(best, config, None, test, ranks)
    space = LabelSpace.from_json(predictions.info["label_space"])
    report = describe(predictions, space)
    if ranks.is_first:
        write_predictions(predictions, folder / "predictions.parquet")
        write_report(predictions, space, report, folder)
    values = headline(report)
    say(f"{stage.key}: " + "  ".join(f"{metric} {value:.1f}" for metric, value in values.items()))
    source = predictions.info["source"]
    return {
        "checkpoint": str(best),
        "values": values,
        "num_test_clips": report["num_clips"],
        "num_unreadable": len(source["unreadable"]),
        "num_without_box": source["num_without_box"],
    }


def headline(report: dict[str, Any]) -> dict[str, float]:
    """Pick the table's figures from a report, per cent."""
    if "verb_noun" in report:
        overall = report["verb_noun"]["overall"]
        return {f"{kind}_top1": 100 * overall[kind]["top1"] for kind in ("verb", "noun", "action")}
    return {
        f"{head}_{k}": 100 * values[k] for head, values in report["heads"].items() for k in ("top1", "top5") if values
    }


def read_result(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Read a stage's result; None where it is not finished.

    Raises:
        CheckpointError: It is the result of something else.
    """
    path = folder / "result.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if result["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"{folder} must be of the same recipe and store, got the result of another run; choose another --out"
        )
    return result


def _collect(table: TableConfig, stages: list[Stage], results: dict[str, dict[str, Any]], ranks: Ranks) -> Table:
    rows = []
    for row in table.rows:
        own = [results[stage.key] for stage in stages if stage.row == row.name]
        metrics = own[0]["values"]
        values = {metric: [result["values"][metric] for result in own] for metric in metrics}
        rows.append(MeasuredRow(row.name, row.title, values))
    tested = next(result for result in results.values() if "values" in result)
    seconds = sum(result["wall_seconds"] for result in results.values())
    notes = (
        f"seeds {', '.join(map(str, range(table.seeds)))}; {tested['num_test_clips']} test clips, of "
        f"{tested['num_without_box']} the centre stands in for the box, {tested['num_unreadable']} unreadable",
        "weights chosen on clips held out of the training split; the test split has no say",
        f"all stages together took {duration(seconds)}, each on {ranks.world_size} x {ranks.device.type}",
    )
    cited = CITED_ROWS if table.dataset in ("ssv2", "epic100") else ()
    metrics = tuple(rows[0].values)
    shown = tuple(row for row in cited if any(row.figure(metric) is not None for metric in metrics))
    return Table(table.title, metrics, tuple(rows), table.baseline, shown, notes)


def generate_data(table: TableConfig, out: Path, say: Say) -> None:
    """Generate the synthetic data set of a table and extract its boxes into `generated_stores`, unless that is done."""
    data = out / "data"
    motionbox = [sys.executable, "-m", "motionbox"]
    fingerprint = hashlib.sha256(json.dumps([table.num_clips, table.camera_motion]).encode()).hexdigest()
    extract = [*motionbox, "extract", "--dataset", "synthetic", "--data-root", str(data), "--flow", "dis"]
    synth = [*motionbox, "synth", "-o", str(data), "--num-clips", str(table.num_clips)]
    jobs = [(data, synth if table.camera_motion else [*synth, "--no-camera-motion"])]
    for preset, store in generated_stores(table, out).items():
        jobs.append((store, [*extract, "--store", str(store), "--preset", preset]))
    for folder, command in jobs:
        marker = folder.with_name(f"{folder.name}.done")  # beside it: these folders are others' to fill
        if read_result(marker, fingerprint) is None:
            say(" ".join(command[2:]))
            done = subprocess.run(command, check=False)
            if done.returncode:
                raise DataError(f"`{' '.join(command[2:])}` must succeed, it ended with exit code {done.returncode}")
            marker.mkdir(exist_ok=True)
            _write_json(marker / "result.json", {"fingerprint": fingerprint})


def generated_stores(table: TableConfig, out: Path) -> dict[str, Path]:
    """Return where the boxes of each preset that a table uses are."""
    return {preset: out / f"store-{preset}" for preset in sorted({row.preset for row in table.rows})}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    private = path.with_suffix(".writing")
    private.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    private.replace(path)
