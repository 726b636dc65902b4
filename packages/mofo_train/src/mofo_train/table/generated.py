"""The data of a table and the stores of their boxes: generated, or a labelled folder; and the guidances to compare."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from mofo_train.data.labels import predicted_columns
from mofo_train.data.splits import describe_folds, first_of
from mofo_train.errors import DataError, ExitCode, Interrupted
from mofo_train.table.recipe import TableConfig
from mofo_train.table.results import read_result, write_json
from motionbox.inputs.manifest import compare_with_media, load_manifest
from motionbox.storage import StorePath

_LOG = logging.getLogger(__name__)
PREPARED = ("synthetic", "metaworld", "folder")
"""Data sets whose stores a table makes for itself."""


def data_of(table: TableConfig, out: Path, data_root: Path | None, *, smoke: bool = False) -> Path:
    """Return where the videos of a prepared data set are, or will be.

    Args:
        table: The recipe, at its profile.
        out: Folder of the table.
        data_root: What the user named; None = the default.
        smoke: Whether it is the smaller profile, whose rendered set is no part of the real one.
    """
    own = table.dataset == "synthetic" or (smoke and table.dataset == "metaworld")
    return data_root or (out / "data" if own else Path("data") / table.dataset)


def run_command(command: list[str]) -> int:
    """Run a command in this process's place in the terminal; return its exit code."""
    return subprocess.run(command, check=False).returncode


def generate_data(
    table: TableConfig, out: Path, data_root: Path | None = None, run: Callable[[list[str]], int] = run_command
) -> None:
    """Make what is missing of a table's data: the videos, their boxes in `generated_stores`, the guidances to compare.

    Args:
        table: The recipe; data set `synthetic` and `metaworld` are generated, `folder` has to be there.
        out: Folder of the table.
        data_root: Folder of the videos; None = the default.
        run: Runs a command, returns its exit code.

    Raises:
        DataError: A command failed; it has said why.
        Interrupted: It was interrupted; the same command resumes.
    """
    data = data_of(table, out, data_root)
    motionbox = [sys.executable, "-P", "-m", "motionbox"]
    described: list[object] = [table.num_clips, table.camera_motion, table.small_clips]
    extract = [*motionbox, "extract", "--dataset", table.dataset, "--data-root", str(data), "--flow", "dis"]
    if table.dataset == "synthetic":
        extract += ["--save", "flow"] if table.small_clips else []  # for masks that follow it
    else:
        described += [table.dataset, str(data.resolve())]
        extract += ["--set", "store.flow=uint8"]
    listed = data / "annotations.csv"
    if table.dataset == "folder":
        described.append(hashlib.sha256(listed.read_bytes()).hexdigest() if listed.is_file() else "")
        extract.append("--allow-missing")
    if table.scale != 1:
        described.append(table.scale)
    fingerprint = hashlib.sha256(json.dumps(described).encode()).hexdigest()
    jobs = [("data", [*motionbox, *command]) for command in _generate(table, data)]
    for preset, store in generated_stores(table, out).items():
        jobs.append((store.name, [*extract, "--store", str(store), "--preset", preset]))
        make = [*motionbox, "import-boxes", str(store), "--name"]
        own = [(name, _control(table, name, data)) for name in table.controls]
        jobs += [(f"{store.name}-{name}", [*make, name, *options]) for name, options in own]
        for one in table.worse:
            degrade = ["--like", "annotated", "--shift", f"{one.shift:g}", "--shrink", f"{one.shrink:g}"]
            jobs.append((f"{store.name}-{one.name}", [*make, one.name, *degrade]))
    for name, command in jobs:
        marker = out / f"{name}.done"  # beside what is made: those folders are others' to fill
        if read_result(marker, fingerprint) is None:
            _LOG.info(" ".join(command[3:]))
            _check(command, run(command))
            marker.mkdir(parents=True, exist_ok=True)
            write_json(marker / "result.json", {"fingerprint": fingerprint})


def _check(command: list[str], code: int) -> None:
    """Stop where a command failed; clips that it could not read are no reason to, they are listed."""
    said = f"`{' '.join(command[3:])}`"
    if code == ExitCode.INTERRUPTED:
        raise Interrupted(f"{said} was interrupted; the same command resumes")
    if code not in (ExitCode.OK, ExitCode.FAILED_CLIPS):
        raise DataError(f"{said} must succeed, it ended with exit code {code}")


def _generate(table: TableConfig, data: Path) -> list[list[str]]:
    """Return the command that makes the videos, none where they are there."""
    synth = ["synth", "-o", str(data), "--num-clips", str(table.num_clips)]
    if table.dataset == "metaworld":
        return [] if (data / "annotations.csv").is_file() else [[*synth, "--metaworld"]]
    if table.dataset != "synthetic":
        return []
    synth += [] if table.camera_motion else ["--no-camera-motion"]
    synth += ["--small"] if table.small_clips else []
    synth += ["--scale", f"{table.scale:g}"] if table.scale != 1 else []
    return [synth]


def _control(table: TableConfig, name: str, data: Path) -> list[str]:
    """Return the options of `motionbox import-boxes` for a guidance to compare.

    Areas at random and of other clips are made of the true ones, where there are any, else of the found ones.
    """
    like = "annotated" if "annotated" in table.controls else "motion"
    options = {
        "annotated": ["--boxes", str(data / "masks")],
        "random": ["--like", like],
        "other": ["--like", like, "--shuffle"],
    }
    return options[name]


def generated_stores(table: TableConfig, out: Path) -> dict[str, Path]:
    """Return where the boxes of each preset that a table uses are."""
    return {preset: out / f"store-{preset}" for preset in sorted({row.preset for row in table.rows})}


def require_data(table: TableConfig, out: Path) -> None:
    """Refuse to help with stages whose data nobody has made yet.

    Args:
        table: The recipe.
        out: Folder of the table.

    Raises:
        DataError: A store is missing.
    """
    for store in generated_stores(table, out).values():
        if not store.exists():
            raise DataError(
                f"{store} must be there before --stages-only can help, got nothing; start the same command without "
                "--stages-only first, which makes the data"
            )


def describe_folder(table: TableConfig, data_root: Path) -> list[str]:
    """Say, before anything is extracted, what a table of a labelled folder will learn from and test, a line each.

    Args:
        table: The recipe, of data set `folder`.
        data_root: The folder.

    Raises:
        DataError: It has no list, no labels, one class, or fewer groups than folds.
        InputError: There is no such folder, or its `annotations.csv` is broken.
    """
    listed = load_manifest("folder", data_root, require_media=False)
    if not (data_root / "annotations.csv").is_file():
        raise DataError(
            f"{data_root} must hold a list annotations.csv with a column path (of each video) and a column label "
            "(its class), got none"
        )
    with_labels(table, data_root, listed)
    lines = describe_folds(listed, table.folds)
    missing, others = compare_with_media(listed, data_root, "they take no part")
    lines += [missing] if missing else []
    if others:
        lines.append(f"{len(others)} videos below {data_root} are not listed and take no part: {first_of(others)}")
    return lines


def with_labels(table: TableConfig, source: StorePath, clips: pa.Table) -> TableConfig:
    """Let a table of a labelled folder predict what the folder is labelled with: `label`, or verb, noun or both.

    Args:
        table: The recipe.
        source: Where the clips are listed, for the error.
        clips: Its clips.

    Raises:
        DataError: None of them is there.
    """
    columns = predicted_columns(clips)
    if not columns:
        filled = [name for name in clips.column_names if clips[name].null_count < len(clips)]
        raise DataError(
            f"annotations.csv of {source} must have a column label (names or numbers), or verb, noun or both, with "
            f"something in it, got columns {', '.join(filled)}"
        )
    own = (f"task.columns={json.dumps(columns)}", "task.num_classes=none")
    return table.model_copy(update={"finetune_set": (*table.finetune_set, *own)})
