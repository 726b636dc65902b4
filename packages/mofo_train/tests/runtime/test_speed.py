from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mofo_train.models import create_pretrain_model
from mofo_train.runtime.run_log import RunLog, read_log
from mofo_train.runtime.speed import training_flops


def test_operations_of_vitb_counted_by_hand() -> None:
    with torch.device("meta"):
        model = create_pretrain_model("videomae_base")
    mask = torch.zeros(2, 1568, dtype=torch.bool)
    mask[:, 160:] = True
    visible, hidden, tokens = 160, 1408, 1568

    def block(num_tokens: int, dim: int, queries: int) -> int:
        linear = 2 * dim * dim * (queries + 2 * num_tokens + queries + 8 * queries)
        return linear + 4 * queries * num_tokens * dim

    forward = (
        2 * visible * 1536 * 768
        + 12 * block(visible, 768, visible)
        + 2 * visible * 768 * 384
        + 3 * block(tokens, 384, tokens)
        + block(tokens, 384, hidden)
        + 2 * hidden * 384 * 1536
    )
    counted = training_flops(model, torch.empty(2, 3, 16, 224, 224, device="meta"), mask)
    assert counted == pytest.approx(3 * forward, rel=1e-6)
    assert 1.9e11 < counted < 2.1e11, "about 200 GFLOP a clip"


def test_rows_of_repeated_steps_count_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write(1, {"event": "train", "loss": 1.0})
    log.write(2, {"event": "train", "loss": 0.9})
    log.write(2, {"event": "train", "loss": 0.8})
    log.close()
    assert [(row["step"], row["loss"]) for row in read_log(tmp_path / "log.jsonl")] == [(1, 1.0), (2, 0.8)]
    assert list((tmp_path / "tensorboard").iterdir())
