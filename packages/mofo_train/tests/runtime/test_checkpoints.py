from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from mofo_train.errors import CheckpointError
from mofo_train.runtime import checkpoints as checkpoint
from mofo_train.runtime.checkpoints import read_newest_checkpoint, write_checkpoint


def write(folder: Path, step: int, keep: int = 2) -> Path:
    model = {"weight": torch.full((3,), float(step))}
    state = {"optimizer": {"state": {0: {"step": torch.tensor(step)}}, "param_groups": [{"lr": 0.1}]}}
    return write_checkpoint(folder, step, model, state, {"stage": "pretrain"}, keep=keep)


def test_what_is_written_is_read_and_the_last_two_remain(tmp_path: Path) -> None:
    for step in (5, 10, 100, 1000):
        write(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000100", "step-000001000"]
    found, problems = read_newest_checkpoint(tmp_path)
    assert found is not None
    assert problems == []
    assert found.step == 1000
    assert found.model["weight"].tolist() == [1000] * 3
    assert found.state["optimizer"]["state"][0]["step"] == 1000
    assert found.info["stage"] == "pretrain"


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".writing-1").mkdir()
    (tmp_path / ".writing-1" / "state.pt").write_bytes(b"half")
    write(tmp_path, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000005"]


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "checkpoint.json"])
@pytest.mark.parametrize("fault", ["torn", "flipped", "missing", "empty"])
def test_a_damaged_checkpoint_is_skipped(tmp_path: Path, name: str, fault: str) -> None:
    write(tmp_path, 1)
    path = write(tmp_path, 2) / name
    content = path.read_bytes()
    if fault == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        path.write_bytes({"torn": content[:middle], "flipped": flipped, "empty": b""}[fault])
    found, problems = read_newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    assert len(problems) == 1
    assert "step-000000002" in problems[0]


def test_nothing_to_read(tmp_path: Path) -> None:
    assert read_newest_checkpoint(tmp_path / "none") == (None, [])


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left on device; free space and resume"):
        write(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    found, _ = read_newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1


def test_files_are_on_disk_before_the_checkpoint_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        order.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real_fsync(descriptor)

    def rename(source: Path, target: Path) -> Path:
        order.append("RENAME")
        return real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    write(tmp_path, 1)
    before, after = order[: order.index("RENAME")], order[order.index("RENAME") + 1 :]
    assert set(before) >= {"model.safetensors", "state.pt", "checkpoint.json"}
    assert after == [tmp_path.name]
