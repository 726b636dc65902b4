"""Checkpoints of a running stage: complete or absent, checked when read, the newest intact one taken.

A checkpoint is a folder `step-<number>` with `model.safetensors` (our names: what other stages and programs load),
`state.pt` (optimiser, scaler, random state) and `checkpoint.json` (step, recipe, digests of the files). It is written
under another name, flushed to the disk and renamed.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mofo_train.errors import CheckpointError
from motionbox.storage.files import sha256_file

_INFO = "checkpoint.json"
_WEIGHTS = "model.safetensors"
_STATE = "state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """What was saved.

    Attributes:
        step: Optimiser steps done.
        model: Weights in our names.
        state: Everything else that resuming needs.
        info: `checkpoint.json`.
        path: The folder.
    """

    step: int
    model: dict[str, Tensor]
    state: dict[str, Any]
    info: dict[str, Any]
    path: Path


def write_checkpoint(
    folder: Path, step: int, model: Mapping[str, Tensor], state: dict[str, Any], info: dict[str, Any], *, keep: int
) -> Path:
    """Write a checkpoint and remove the older ones.

    Args:
        folder: Where checkpoints are kept.
        step: Optimiser steps done.
        model: Weights.
        state: Everything else, plain containers and tensors.
        info: What to write beside it (JSON).
        keep: How many checkpoints remain.

    Returns:
        The new folder.

    Raises:
        CheckpointError: The disk is full or cannot be written; older checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    private, final = folder / f".writing-{os.getpid()}", folder / f"step-{step:09d}"
    try:
        for unfinished in folder.glob(".writing-*"):  # of a process that was killed; a folder has one writer
            shutil.rmtree(unfinished, ignore_errors=True)
        private.mkdir()
        save_file({name: value.detach().cpu().contiguous() for name, value in model.items()}, private / _WEIGHTS)
        torch.save(state, private / _STATE)
        digests = {name: sha256_file(private / name) for name in (_WEIGHTS, _STATE)}
        text = json.dumps({**info, "step": step, "sha256": digests}, indent=2)
        (private / _INFO).write_text(text + "\n", encoding="utf-8")
        for path in private.iterdir():
            _flush(path)
        if final.exists():
            shutil.rmtree(final)
        private.rename(final)
        _flush(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(private, ignore_errors=True)
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(f"checkpoint {final} must be writable, got: {reason}; free space and resume") from None
    for old in _folders(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def read_newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Read the newest checkpoint that is intact.

    Returns:
        The checkpoint, None where there is none, and what is wrong with the newer ones that were skipped.
    """
    problems: list[str] = []
    for path in reversed(_folders(folder)):
        try:
            return read_checkpoint(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    return None, problems


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint folder.

    Raises:
        CheckpointError: A file is missing, torn or does not match its digest.
    """
    try:
        info = json.loads((path / _INFO).read_text(encoding="utf-8"))
        for name, expected in info["sha256"].items():
            if sha256_file(path / name) != expected:
                raise CheckpointError(f"{path / name} must match its digest, it is torn or was changed")
        model = load_file(path / _WEIGHTS)
        state = torch.load(path / _STATE, map_location="cpu", weights_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(f"checkpoint {path} must be complete, got: {reason}") from None
    return Checkpoint(int(info["step"]), model, state, info, path)


def _folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
