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
    fingerprint = hashlib.sha256(json.dumps([table.num_clips, table.camera_motion]).encode()).hexdigest()
    extract = [*motionbox, "extract", "--dataset", "synthetic", "--data-root", str(data), "--flow", "dis"]
    synth = [*motionbox, "synth", "-o", str(data), "--num-clips", str(table.num_clips)]
    jobs = [(data, synth if table.camera_motion else [*synth, "--no-camera-motion"])]
    for preset, store in generated_stores(table, out).items():
        jobs.append((store, [*extract, "--store", str(store), "--preset", preset]))
    for folder, command in jobs:
        marker = folder.with_name(f"{folder.name}.done")  # beside it: these folders are others' to fill
        if read_result(marker, fingerprint) is None:
            _LOG.info(" ".join(command[3:]))
            done = subprocess.run(command, check=False)
            if done.returncode:
                raise DataError(f"`{' '.join(command[3:])}` must succeed, it ended with exit code {done.returncode}")
            marker.mkdir(exist_ok=True)
            write_json(marker / "result.json", {"fingerprint": fingerprint})


def generated_stores(table: TableConfig, out: Path) -> dict[str, Path]:
    """Return where the boxes of each preset that a table uses are."""
    return {preset: out / f"store-{preset}" for preset in sorted({row.preset for row in table.rows})}
