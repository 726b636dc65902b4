from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings

# An example that takes long on a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store of twelve generated clips, with DIS flow; its videos lie beside it in `synthetic`."""
    from motionbox.synthetic import SyntheticConfig, write_dataset

    folder = tmp_path_factory.mktemp("generated")
    write_dataset(folder / "synthetic", SyntheticConfig(12, 0, True), num_workers=1)
    return _extract(folder / "synthetic", folder / "store")


@pytest.fixture(scope="session")
def clips_store_path(store_path: Path) -> Path:
    """Store of the same clips that keeps their frames, with the same boxes."""
    return _extract(store_path.parent / "synthetic", store_path.parent / "store_clips", "--clips")


@pytest.fixture(scope="session")
def flow_store_path(store_path: Path) -> Path:
    """Store of the same clips that keeps their flow, with the same boxes."""
    return _extract(store_path.parent / "synthetic", store_path.parent / "store_flow", "--save", "flow")


def _extract(data: Path, store: Path, *options: str) -> Path:
    from motionbox.cli import main

    arguments = ["extract", "--dataset", "synthetic", "--data-root", str(data), "--flow", "dis", *options]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--store", str(store), "--executor", "serial", "--workers", "0"])
    assert stop.value.code == 0
    return store
