"""Fixtures that every folder's tests use."""

import os
from pathlib import Path

import pytest

# As the command line does, and before torch is loaded: threads that spin while they wait slow a
# busy machine many times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real MRI cases, or a skip that says why."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("GLIOMOE_TEST_DATA", root / "../shared/data")).resolve()
    if not (folder / "brats").is_dir():
        pytest.skip(f"no real MRI in {folder}; set GLIOMOE_TEST_DATA")
    return folder


@pytest.fixture(autouse=True, scope="session")
def two_threads() -> None:
    """The suite is sized for two cores."""
    import torch

    torch.set_num_threads(2)
