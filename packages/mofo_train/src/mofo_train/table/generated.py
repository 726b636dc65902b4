"""The generated data set of a table and the stores of its boxes."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from pathlib import Path

from mofo_train.errors import DataError
from mofo_train.table.recipe import TableConfig
from mofo_train.table.results import read_result, write_json

_LOG = logging.getLogger(__name__)


def generate_data(table: TableConfig, out: Path) -> None:
    """Generate the synthetic data set of a table and extract its boxes into `generated_stores`, unless that is done."""
    data = out / "data"
    motionbox = [sys.executable, "-P", "-m", "motionbox"]
    described = [table.num_clips, table.camera_motion, table.small_clips]
    fingerprint = hashlib.sha256(json.dumps(described).encode()).hexdigest()
    extract = [*motionbox, "extract", "--dataset", "synthetic", "--data-root", str(data), "--flow", "dis"]
    extract += ["--save", "flow"] if table.small_clips else []  # for masks that follow it
    synth = [*motionbox, "synth", "-o", str(data), "--num-clips", str(table.num_clips)]
    synth += [] if table.camera_motion else ["--no-camera-motion"]
    jobs = [("data", [*synth, "--small"] if table.small_clips else synth)]
    for preset, store in generated_stores(table, out).items():
        jobs.append((store.name, [*extract, "--store", str(store), "--preset", preset]))
        make = [*motionbox, "import-boxes", str(store), "--name"]
        jobs += [(f"{store.name}-{name}", [*make, name, *_how_to_make(name, data)]) for name in table.controls]
    for name, command in jobs:
        marker = out / f"{name}.done"  # beside what is made: those folders are others' to fill
        if read_result(marker, fingerprint) is None:
            _LOG.info(" ".join(command[3:]))
            done = subprocess.run(command, check=False)
            if done.returncode:
                raise DataError(f"`{' '.join(command[3:])}` must succeed, it ended with exit code {done.returncode}")
            marker.mkdir(exist_ok=True)
            write_json(marker / "result.json", {"fingerprint": fingerprint})


def _how_to_make(control: str, data: Path) -> list[str]:
    """Return the options of `motionbox import-boxes` for a control; the last two are made of the true areas."""
    options = {
        "annotated": ["--boxes", str(data / "masks")],
        "random": ["--like", "annotated"],
        "other": ["--like", "annotated", "--shuffle"],
    }
    return options[control]


def generated_stores(table: TableConfig, out: Path) -> dict[str, Path]:
    """Return where the boxes of each preset that a table uses are."""
    return {preset: out / f"store-{preset}" for preset in sorted({row.preset for row in table.rows})}
