from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store of twelve generated clips, with DIS flow; its videos lie beside it in `synthetic`."""
    from motionbox.cli import main
    from motionbox.datasets.synthetic import SyntheticConfig, write_dataset

    folder = tmp_path_factory.mktemp("generated")
    write_dataset(folder / "synthetic", SyntheticConfig(12, 0, True), num_workers=1)
    arguments = ["extract", "--dataset", "synthetic", "--data-root", str(folder / "synthetic"), "--flow", "dis"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--store", str(folder / "store"), "--executor", "serial", "--workers", "0"])
    assert stop.value.code == 0
    return folder / "store"
