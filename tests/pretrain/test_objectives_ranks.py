"""Two processes together find the loss and the gradient that one finds on the whole batch."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gliomoe.pretrain.objectives import OBJECTIVES

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("one_rank.py")


@pytest.fixture(scope="module")
def alone(shards):
    """What one process finds."""
    spec = importlib.util.spec_from_file_location("one_rank", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.measure(shards)


@pytest.fixture(scope="module")
def together(shards, tmp_path_factory):
    """What two processes find."""
    folder = tmp_path_factory.mktemp("ranks")
    out = folder / "found.pt"
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), "2", folder / "store", shards, out],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return torch.load(out)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_equal_one(name, alone, together):
    one, two = alone[name], together[name]
    assert one.keys() == two.keys()
    for key, value in one.items():
        error = (two[key] - value).norm()
        limit = 1e-6 if value.ndim == 0 else 1e-5
        assert error <= limit * value.norm() + 1e-7, f"{key}: {error:.2g} of {value.norm():.2g}"
