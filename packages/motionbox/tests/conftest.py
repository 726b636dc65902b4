from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def testdata() -> Path:
    """Folder of real test data: $MOTIONBOX_TESTDATA, or `shared` beside the checkout; skips where it is absent."""
    default = Path(__file__).resolve().parents[4] / "shared"
    folder = Path(os.environ.get("MOTIONBOX_TESTDATA", default))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set MOTIONBOX_TESTDATA")
    return folder
