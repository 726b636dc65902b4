"""A file of any program -> its weights under their own names.

Files are told apart by their content, not by their suffix. Pickles are read with PyTorch's `weights_only`: beside
tensors they may hold what training scripts keep in their arguments (`argparse.Namespace`, paths, NumPy numbers), by
name; anything else is refused, because reading it would run its code.
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from mofo_train.errors import CheckpointError

State = dict[str, Tensor]
WeightsKind = Literal["model", "ema"]
_LOG = logging.getLogger(__name__)
_MODEL_CONTAINERS = ("model", "module", "state_dict", "model_state")
_EMA_CONTAINERS = ("model_ema", "state_dict_ema", "ema_state_dict", "model_state_ema", "ema")
_WRAPPERS = ("module.", "_orig_mod.", "backbone.", "model.")
_COUNTERS = ("n_averaged", "steps")  # what averages of weights count, beside the weights
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*m")


def _safe_globals() -> list[Any]:
    """Return what a pickle may hold beside tensors, with the names under which other versions have saved it."""
    makes = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.zeros(0).__reduce__()[0]}
    paths = [
        (pathlib.PurePath if name.startswith("Pure") else pathlib.PosixPath, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "PurePath", "PurePosixPath")
    ]
    windows = [
        (pathlib.PureWindowsPath, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("WindowsPath", "PureWindowsPath")
    ]
    numbers = [(make, f"numpy.{core}.multiarray.{name}") for core in ("_core", "core") for name, make in makes.items()]
    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefdFDSUO"}
    return [argparse.Namespace, np.ndarray, np.dtype, *kinds, *paths, *windows, *numbers]


def checkpoint_of(path: Path) -> Path:
    """Return the checkpoint that a path means: of the folder of a run its best weights, or else the newest ones."""
    for name in ("best", "checkpoints"):
        inside = sorted((path / name).glob("step-*"))
        if inside:
            return inside[-1]
    return path


def read_named_weights(path: str | Path, kind: WeightsKind | None = None) -> State:
    """Read a checkpoint of any program under its own names, without the wrappers around them.

    Groups of weights, as in `{"trunk": {...}, "heads": {...}}`, become prefixes: `trunk.`, `heads.`.

    Args:
        path: A pickle of PyTorch, a safetensors file, a folder with either, or the folder of a run.
        kind: `model`, or `ema` for the moving average of a file that holds both; None = the model's, or the average
            where there is nothing else.

    Raises:
        CheckpointError: The file is missing, unreadable or unsafe, holds no named weights or not of that kind, or a
            weight is not a number.
    """
    path = checkpoint_of(Path(path))
    state = _unwrap(_choose(_read(path, kind), path, kind), path)
    _refuse_nan(state, path)
    return state


def _read(path: Path, kind: WeightsKind | None) -> Any:
    if path.is_dir():
        if kind == "ema" and (path / "state.pt").is_file():
            return _average_of_ours(path)
        inside = [path / name for name in ("model.safetensors", "pytorch_model.bin") if (path / name).is_file()]
        if not inside:
            raise CheckpointError(f"{path} must contain model.safetensors or pytorch_model.bin, got neither")
        path = inside[0]
    try:
        return load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist") from None
    except pickle.UnpicklingError as error:
        text = _TERMINAL_CODE.sub("", str(error))
        refused = _GLOBAL.search(text)
        if refused is None:
            detail = text.rpartition("WeightsUnpickler error: ")[2].split("\n", 1)[0]
            raise CheckpointError(f"checkpoint {path} must hold weights, got other bytes ({detail})") from None
        what = f"{refused[1]} in it, whose code would run"
        raise CheckpointError(
            f"checkpoint {path} must be a plain file of weights, got {what}; save its state_dict alone"
        ) from None
    except Exception as error:  # what the unpickler raises on bytes that are no pickle depends on the bytes
        reason = _TERMINAL_CODE.sub("", str(error) or type(error).__name__).split("\n", 1)[0]
        raise CheckpointError(f"checkpoint {path} must be readable, got: {reason}; copy it again") from None


def _average_of_ours(path: Path) -> Any:
    """Return the average in a checkpoint of ours: beside the optimiser, or in `best` instead of the model's weights."""
    state = _load_pickle(path / "state.pt")
    average = state.get("objective", {}).get("average")
    if not state and '"ema_decay": null' not in (path / "checkpoint.json").read_text(encoding="utf-8"):
        average = load_file(path / "model.safetensors")
    return {"model": {}} if average is None else {"model_ema": average}


def _load_pickle(path: Path) -> Any:
    with torch.serialization.safe_globals(_safe_globals()):
        return torch.load(path, map_location="cpu", weights_only=True)


def _choose(content: Any, path: Path, kind: WeightsKind | None) -> Any:
    """Take the model's weights or their average out of a file that says which is which."""
    if not isinstance(content, Mapping):
        return content
    averages = [name for name in _EMA_CONTAINERS if isinstance(content.get(name), Mapping)]
    models = [name for name in _MODEL_CONTAINERS if isinstance(content.get(name), Mapping)]
    if kind == "ema" and not averages:
        raise CheckpointError(f"checkpoint {path} must hold averaged weights (EMA), got the model's alone")
    if averages and kind != "model" and (kind == "ema" or not models):
        return {"model": content[averages[0]]}
    if averages and kind is None:
        _LOG.warning("%s: holds the model's weights and their average (EMA), the model's are taken", path)
    return content


def _unwrap(content: Any, path: Path) -> State:
    for container in _MODEL_CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"checkpoint {path} must hold named weights, got {type(content).__name__}")
    state: State = {}
    for key, value in _ungrouped(content).items():
        name = key
        while name.startswith(_WRAPPERS):
            name = name.split(".", 1)[1]
        if name not in _COUNTERS:
            state[name] = value
    return state


def _ungrouped(content: Mapping[str, Any]) -> State:
    """Return the tensors of a mapping and of the mappings in it, whose names become prefixes."""
    found: State = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            found[key] = value
        elif isinstance(value, Mapping):
            found |= {f"{key}.{name}": part for name, part in value.items() if isinstance(part, Tensor)}
    return found


def _refuse_nan(state: State, path: Path) -> None:
    bad = [name for name, value in state.items() if value.is_floating_point() and bool(value.isnan().any())]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise CheckpointError(
            f"checkpoint {path} must hold numbers, got NaN in {bad[0]}{more}; the training that wrote it had diverged: "
            "take an earlier checkpoint"
        )
