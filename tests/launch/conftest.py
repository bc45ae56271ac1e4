"""Small runs on several nodes, and what is left of them."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from gliomoe.data_shards.format.dataset import seal
from gliomoe.data_shards.format.record import encode_study
from gliomoe.data_shards.format.writer import write_shards

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch/pretrain.sh"
_MARK = "GLIOMOE_TEST_MARK"


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """A shard set of eight studies."""
    spec = importlib.util.spec_from_file_location("studies", ROOT / "tests/pretrain/conftest.py")
    studies = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(studies)
    folder = tmp_path_factory.mktemp("shards")
    encoded = (encode_study(studies.make_study(n)) for n in range(8))
    seal(folder, list(write_shards(folder, encoded, 100_000)), {"spacing": 3.0})
    return folder


def wait_until(happened, seconds):
    """Whether something happens in time."""
    until = time.monotonic() + seconds
    while not (done := happened()) and time.monotonic() < until:
        time.sleep(0.1)
    return done


class Started:
    """Commands of a test, which it ends together with all that they started, wherever that is."""

    def __init__(self):
        self.env = {_MARK: uuid.uuid4().hex}
        self.commands = []

    def __call__(self, *command, cwd=ROOT, **env):
        """Start a command with more environment."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "MASTER_"))}
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**clean, "OMP_NUM_THREADS": "1", **self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.commands.append(process)
        return process

    def left(self):
        """What runs of them and of their children, those out of sight included."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self.env[_MARK] and process.status() != "zombie":
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def all_end(self, seconds):
        """Whether nothing is left soon."""
        return wait_until(lambda: not self.left(), seconds)

    def until(self, happened, *processes, seconds=120):
        """Wait until something has happened while these processes run."""
        ended = wait_until(
            lambda: happened() or any(p.poll() is not None for p in processes), seconds
        )
        assert happened(), processes[0].communicate()[0] if ended else f"not in {seconds} s"


@pytest.fixture
def start():
    """Start commands."""
    started = Started()
    yield started
    for process in started.left():
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    for process in started.commands:
        process.communicate()


@pytest.fixture(scope="session")
def options(shards):
    """The arguments of a small run in a folder."""

    def of(out, *more):
        return (
            "smoke", "--data.train", shards, "--run.out", out, "--engine.precision", "fp32",
            "--engine.zero_stage", "0", "--data.workers", "0", "--run.checkpoint_every", "5",
            "--run.steps", "30", "--monitor.pictures_every", "0", *more,
        )  # fmt: skip

    return of


@pytest.fixture(scope="session")
def undisturbed(options, tmp_path_factory):
    """A run on one node with two processes."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    started = Started()
    process = started(SCRIPT, *options(out), GLIOMOE_PROCESSES="2")
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    return out


@pytest.fixture
def free_port():
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("", 0))
        return listening.getsockname()[1]


@pytest.fixture(scope="session")
def latest():
    """The function that names a run's newest checkpoint, empty if there is none."""

    def name(run):
        written = run / "checkpoints/latest"
        return written.read_text().strip() if written.is_file() else ""

    return name


@pytest.fixture(scope="session")
def assert_same_run(latest):
    """The function that compares losses and weights of two runs, bit for bit."""

    def compare(*runs):
        traces = [(run / "metrics.jsonl").read_text().splitlines() for run in runs]
        one, two = ([json.loads(line)["loss"] for line in trace] for trace in traces)
        assert one == two
        folders = [run / "checkpoints" / latest(run) for run in runs]
        first, second = (load_file(folder / "weights.safetensors") for folder in folders)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)

    return compare
