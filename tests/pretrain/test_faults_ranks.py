"""One of two ranks is lost: the other ends, with one message, and nothing is left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gliomoe.data_shards.reading.reader import OrderConfig, open_reader
from gliomoe.pretrain.samples.loading import Placement

pytestmark = pytest.mark.slow

FAULTY = Path(__file__).with_name("faulty_worker.py")
MARK = "GLIOMOE_TEST_MARK"
SOON = 60
"""Seconds after which all ranks must have ended."""


def marked(mark):
    """Processes that were started under a mark, however they are related."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


@contextmanager
def started(*command):
    """A command whose processes, all of them, are gone afterwards; it and its mark."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, MARK: mark, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process, mark
    finally:
        for pid in marked(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def launch(shards, run, fault, rank, step, *more):
    """Two ranks of the preset `smoke`, one with a fault."""
    return started(
        "-m", "gliomoe.launch.torchrun", "--standalone", "--nproc-per-node", 2,
        "--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1", "--shutdown-timeout", 600,
        FAULTY, fault, rank, step, "pretrain", "smoke", "--data.train", shards, "--run.out", run,
        "--engine.precision", "fp32", "--health.silence", 4, "--data.timeout", 5, *more,
    )  # fmt: skip


def steps_done(run):
    trace = run / "metrics.jsonl"
    return len(trace.read_text().splitlines()) if trace.is_file() else 0


def ending(process, mark, run, step):
    """Exit code and output of a run with a fault at a step, after which it must end soon."""
    while process.poll() is None and steps_done(run) < step:
        time.sleep(0.2)
    said = process.communicate(timeout=SOON)[0]
    left = time.monotonic() + 5
    while marked(mark) and time.monotonic() < left:
        time.sleep(0.1)
    assert not marked(mark)
    return process.returncode, said


def messages(said):
    return [line for line in said.splitlines() if "error: " in line or line.startswith("torchrun")]


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("kill", r"is gone: killed.* no sign of life for 4 s, the last while .*, step [1-5];"),
        ("raise", r"RuntimeError: the coolant leaks"),
        ("hang", r"hangs in loop.py:\d+ in train for \d+ s while computing, step 5;"),
        ("hang_reader", r"no batch within data.timeout, readers are at \S+, study case-\d+;"),
    ],
)
def test_one_rank_is_lost(shards, tmp_path, fault, cause):
    limit = 8 if fault == "hang" else 600
    with launch(shards, tmp_path / "run", fault, 1, 5, "--engine.timeout", limit) as (run, mark):
        code, said = ending(run, mark, tmp_path / "run", 5)
    assert code == 1, said
    (message,) = messages(said)
    assert re.search(rf"rank 1 of 2 on {socket.gethostname()}:? {cause}", message), said
    assert "Traceback" not in said


def test_studies_of_another_rank_are_named(shards, tmp_path):
    with launch(shards, tmp_path / "run", "nan", 1, 3, "--health.bad_steps", 2) as (run, mark):
        code, said = ending(run, mark, tmp_path / "run", 4)
    reader = open_reader([shards], OrderConfig(), 0, 4)
    numbers = Placement(batch=4, accumulation=1, rank=1, world=2).numbers(4, 0)
    keys = ", ".join(reader.shards.entry(reader.number(n)).key for n in numbers)
    assert code == 1, said
    (message,) = messages(said)
    assert "2 steps in a row were skipped, the last for its loss or gradient" in message
    assert f" with {keys};" in message


def watched(fault):
    """Exit codes and output of three processes, the last two as on another node."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "3"}
    processes = [
        subprocess.Popen(
            [sys.executable, FAULTY.with_name("watched_process.py"), fault],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(local)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, local in ((0, 0), (1, 0), (2, 1))
    ]
    try:
        ends = [p for p in processes if (fault, p) != ("freeze", processes[1])]
        said = "".join(process.communicate(timeout=SOON)[1] for process in ends)
        return [process.poll() for process in processes], said
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stderr.close()


def test_long_waits_are_no_hang():
    codes, said = watched("wait_long")
    assert codes == [0, 0, 0], said
    assert not messages(said)


@pytest.mark.parametrize(
    ("fault", "codes", "cause"),
    [
        ("freeze", [1, None, 1], r"rank 1 of 3 on \S+ is gone: .* for 3 s, the last while"),
        (
            "lose_store",
            [-signal.SIGKILL, 1, 1],
            r"rank 1 of 3 on \S+: no contact with the run's first node \(127.0.0.1:\d+\) for 3 s",
        ),
    ],
)
def test_a_process_or_the_first_node_is_lost(fault, codes, cause):
    found, said = watched(fault)
    assert found == codes, said
    (message,) = messages(said)  # torch adds warnings of its own
    assert re.search(cause, message)
