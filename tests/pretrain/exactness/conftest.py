"""Runs in several real processes, started fast and killed for certain."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from gliomoe.pretrain.checkpoints import store as checkpoints

LIMIT = 240


def pretraining(shards, out, *more, preset="smoke"):
    """Arguments of a run of twelve steps in float32 with a checkpoint every two."""
    argv = [
        "pretrain", preset, "--data.train", shards, "--run.out", out, "--run.steps", 12,
        "--run.checkpoint_every", 2, "--data.workers", 0, "--engine.precision", "fp32",
        "--engine.timeout", 60, "--monitor.pictures_every", 0, *more,
    ]  # fmt: skip
    return [str(part) for part in argv]


class Nursery:
    """Starts the ranks of a run as children of a process that has imported all they need."""

    def __init__(self, process, folder):
        self.process, self.folder = process, folder
        self.started = []

    def ask(self, **question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, world, argv, full=None):
        """The ranks of `gliomoe` with these arguments; the disk of rank `full` is full."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
        log = self.folder / f"{len(self.started)}.log"
        pids = [
            self.ask(
                argv=argv,
                env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                log=str(log),
                full=rank == full,
            )
            for rank in range(world)
        ]
        self.started += pids
        return Ranks(self, pids, log)

    def end(self):
        """End all that was started, and the nursery."""
        for pid in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self.process.kill()


class Ranks:
    """The processes of one run."""

    def __init__(self, nursery, pids, log):
        self.nursery, self.pids, self.log = nursery, pids, log

    def said(self):
        return self.log.read_text() if self.log.is_file() else ""

    def buffers(self):
        """Checksums of the buffers of each rank when it last saved."""
        found = [Path(f"{self.log}.{rank}.json") for rank in range(len(self.pids))]
        return [json.loads(path.read_text()) for path in found]

    def until(self, happened):
        """Wait for something, which must happen before a rank ends."""
        end = time.monotonic() + LIMIT
        while not happened():
            assert all(alive(pid) for pid in self.pids) and time.monotonic() < end, self.said()
            time.sleep(0.001)

    def codes(self):
        """Exit codes of all ranks."""
        return [self.nursery.ask(wait=pid) for pid in self.pids]

    def kill(self):
        for pid in self.pids:
            os.killpg(pid, signal.SIGKILL)
        assert self.codes() == [-signal.SIGKILL] * len(self.pids)


def alive(pid):
    """Whether a process runs, be it one whose end nobody has asked for yet."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture(scope="package")
def nursery(tmp_path_factory):
    """A `Nursery` whose processes end with the tests of this folder."""
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("nursery.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
    ) as process:
        nursery = Nursery(process, tmp_path_factory.mktemp("logs"))
        try:
            yield nursery
        finally:
            nursery.end()


@pytest.fixture
def start(nursery):
    """The function that starts the ranks of a run; a test that takes too long is ended."""
    timer = threading.Timer(LIMIT, nursery.end)
    timer.start()
    yield lambda world, *run, full=None, **preset: nursery.start(
        world, pretraining(*run, **preset), full
    )
    timer.cancel()
    timer.join()


@pytest.fixture
def arguments():
    """The function that gives the arguments which `start` adds."""
    return pretraining


@pytest.fixture
def trace():
    """The function that reads the losses of a run, step by step."""

    def read(run):
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    return read


@pytest.fixture
def final():
    """The function that reads the weights of a run's newest checkpoint."""
    return lambda run: load_file(checkpoints.newest(run).folder / checkpoints.WEIGHTS)
