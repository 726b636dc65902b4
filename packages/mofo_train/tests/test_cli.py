from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import click
import pytest
import torch

from mofo_train import cli
from mofo_train.errors import DataError
from motionbox.command_line import run
from motionbox.errors import StoreError
from motionbox.store import open_store


def outcome(error: Exception, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return exit code and stderr of a command that ends with an error."""

    @click.command
    def failing() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        run(click.Group(commands=[failing]), "mofo-train", ["failing"], cli.too_little_memory)
    return int(str(stop.value.code)), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("clips must be there"), "clips must be there"),
        (StoreError("store must be there"), "store must be there"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/log.jsonl"),
            "run/log.jsonl must be readable and writable, got: No space left on device",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "must be readable and writable, got: No space left"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40.00 GiB. GPU 0 has 79 GiB."),
            "the device must have enough memory, got: CUDA out of memory; compute a batch in more parts",
        ),
    ],
)
def test_errors_of_users_and_disks_are_one_line(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = outcome(error, capsys)
    assert code == 2
    assert text.startswith("mofo-train: error: ")
    assert message in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("error", [OSError("no number"), RuntimeError("no number")])
def test_a_fault_of_the_program_keeps_its_traceback(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error), match="no number"):
        outcome(error, capsys)


def test_a_run_cannot_be_put_where_a_file_is(
    store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain", "--store", str(store_path), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "out must be readable and writable, got: " in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_sigterm_outside_a_training_is_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned: list[int] = []

    @click.command
    def working() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            cleaned.append(1)
            raise

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        run(click.Group(commands=[working]), "mofo-train", ["working"])
    assert stop.value.code == 75
    assert cleaned == [1], "what a command started is stopped"
    assert "stopped by SIGTERM; run the same command again" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


_RECIPE = """
stage = "pretrain"
[model]
name = "videomae_tiny"
num_frames = 4
image_px = 48
[data]
dataset = "synthetic"
short_side_px = 64
num_workers = 0
[optim]
batch_size = 12
epochs = 1
warmup_epochs = 0
[run]
precision = "fp32"
"""


def test_a_run_is_bound_to_its_store_and_says_how_many_clips_it_has(
    store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(_RECIPE)
    arguments = ["--recipe", str(tmp_path / "recipe.toml"), "--store", str(store_path), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain", *arguments])
    assert stop.value.code == 0
    written = capsys.readouterr()
    assert written.err.startswith("12 clips\nstep ")
    assert written.out.startswith("done: ")
    claim = tmp_path / "out" / "recipe.json"
    values = json.loads(claim.read_text())
    assert values["data"].split()[0] == open_store(store_path).run_id
    claim.write_text(json.dumps(values | {"data": "of another store"}))
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain", *arguments])
    assert stop.value.code == 2
    assert "out must hold a run on the same store and clips" in capsys.readouterr().err
