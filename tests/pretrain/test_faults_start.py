"""A run starts on a machine without a compiler, whatever lies in the cache of extensions."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.pretrain.engine import processes

COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "clang++", "nvcc", "ninja")


@pytest.mark.slow
def test_no_compiler_and_a_stale_lock(shards, tmp_path):
    """Two ranks, since the operator that DeepSpeed would build is for several on one machine."""
    cache, tools = tmp_path / "extensions", tmp_path / "tools"
    for operator in ("deepspeed_shm_comm", "cpu_adam", "fused_adam", "async_io", "utils"):
        (cache / operator).mkdir(parents=True)
        (cache / operator / "lock").touch()
    tools.mkdir()
    env = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")}
    env |= {"PATH": str(tools), "TORCH_EXTENSIONS_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    assert not any(shutil.which(name, path=env["PATH"]) for name in COMPILERS)
    before = sorted(cache.rglob("*"))
    done = subprocess.run(
        [
            sys.executable, "-m", "gliomoe.launch.torchrun", "--standalone",
            "--nproc-per-node", "2", "--module", "gliomoe.launch.worker", "pretrain", "smoke",
            "--data.train", str(shards), "--run.out", str(tmp_path / "run"), "--run.steps", "2",
        ],
        env=env,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/checkpoints/step_2/manifest.json").is_file()
    assert sorted(cache.rglob("*")) == before


def python(code, **env):
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout + done.stderr


START = """
import torch
import torch.distributed as dist
from gliomoe.pretrain.engine.processes import start_processes
from gliomoe.pretrain.sections import EngineConfig
"""


def test_groups_that_deepspeed_makes_wait_no_longer_than_ours():
    code = """
start_processes(EngineConfig(timeout=20))
for group in (dist.group.WORLD, dist.new_group([0])):
    print(group._get_backend(torch.device("cpu")).options._timeout.total_seconds())
"""
    assert python(START + code).split() == ["100.0", "100.0"]


def test_half_a_description_of_the_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="variable RANK expected, but not set; launch/pretrain.sh"):
        processes._meet(timeout=2)


def test_processes_that_do_not_come_are_missed():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": "0", "WORLD_SIZE": "2"}
    said = python(START + "start_processes(EngineConfig(timeout=2))", **place)
    missed = f"the 2 processes did not all meet at 127.0.0.1:{port} (Timed out"
    assert f"RankError: rank 0: {missed}" in said
