"""Checks before the first step: each against bad facts, then all of them in two processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.launch.cli import main
from gliomoe.pretrain.faults.watch import RankError
from gliomoe.pretrain.planning.hardware import Cluster
from gliomoe.pretrain.planning.machines import Machines
from gliomoe.pretrain.planning.plan import make_plan
from gliomoe.pretrain.planning.preflight import (
    estimates,
    facts,
    folder,
    machines,
    meeting,
    network,
    shards,
)
from gliomoe.pretrain.planning.preflight.check import judge, preflight
from gliomoe.pretrain.planning.preflight.facts import Facts
from gliomoe.pretrain.planning.preflight.finding import Finding, failure, table
from gliomoe.pretrain.planning.preflight.meeting import Meeting
from gliomoe.pretrain.planning.work import Work

GOOD = Facts(
    rank=0,
    host="node-0",
    device="NVIDIA H100 80GB HBM3",
    memory_bytes=80 * 10**9,
    versions={"python": "3.11.7", "torch": "2.15.0"},
    code="abc",
    clock_off=0.0,
    shared_memory=10**9,
    open_files=65536,
    folder="",
    free_bytes=10**12,
    data="d1",
    damage=(),
    checked=5,
    network_s=0.001,
)

DATA = {"studies": 8, "fingerprint": "d1"}


def pair(**second):
    """Two processes on two hosts, the second with other facts."""
    return [GOOD, replace(GOOD, rank=1, host="node-1", **second)]


CHECKS = {
    "other GPU": (
        lambda: machines.check_devices(pair(device="NVIDIA A100-SXM4-80GB")),
        ("warning", "NVIDIA A100-SXM4-80GB, NVIDIA H100"),
    ),
    "no GPU": (
        lambda: machines.check_devices(pair(device="cpu")),
        ("failed", "rank 1 see no GPU"),
    ),
    "other torch": (
        lambda: machines.check_versions(pair(versions={"python": "3.11.7", "torch": "2.14.0"})),
        ("failed", "torch 2.15.0 on rank 0, 2.14.0 on rank 1 (node-1)"),
    ),
    "other commit": (
        lambda: machines.check_versions(pair(code="abd")),
        ("failed", "the code of gliomoe on rank 1 (node-1) is not rank 0's"),
    ),
    "clock": (
        lambda: machines.check_clocks(pair(clock_off=-90.0)),
        ("warning", "node-1 is -90 s off"),
    ),
    "/dev/shm": (
        lambda: machines.check_limits(pair(shared_memory=64 * 2**20), 10**8),
        ("warning", "/dev/shm of node-1 has 67.1 MB, readers may need 100 MB"),
    ),
    "open files": (
        lambda: machines.check_limits(pair(open_files=256), 10**8),
        ("warning", "node-1 allows 256 open files"),
    ),
    "no network": (
        lambda: network.check_network(pair(network_s=None, network="refused"), Cluster()),
        ("failed", "rank 1 (node-1): refused"),
    ),
    "slow network": (
        lambda: network.check_network(pair(network_s=0.64), Cluster(gpus_per_node=1)),
        ("warning", "0.10 GB/s (bus bandwidth), slow for NVIDIA H100"),
    ),
    "another folder": (
        lambda: folder.check_folder(pair(folder="runs is not the folder"), Path("runs")),
        ("failed", "rank 1: runs is not the folder"),
    ),
    "full disk": (
        lambda: folder.check_space(pair(), 2 * 10**12),
        ("failed", "1,000.0 GB free, the checkpoints need 2,000.0 GB"),
    ),
    "short shard": (
        lambda: shards.check_data(pair(damage=("a.tar has 1 bytes, not 2", "b.tar is missing"))),
        ("failed", "a.tar has 1 bytes, not 2 and 1 more"),
    ),
    "other shards": (
        lambda: shards.check_data(pair(data="d2")),
        ("failed", "the shards on rank 1 (node-1) are not those of rank 0"),
    ),
    "pipes": (
        lambda: shards.check_data([replace(GOOD, checked=0)]),
        ("warning", "sizes not checked"),
    ),
}


@pytest.mark.parametrize("name", CHECKS)
def test_bad_facts_are_found(name):
    check, (status, text) = CHECKS[name]
    finding = check()
    assert finding.status == status
    assert text in finding.text
    assert finding.advice


def plan_of(config, work, processes=2):
    on = Machines(processes, 1, "autocast", GOOD.device, GOOD.memory_bytes)
    return make_plan(config, work, on, [], "", Cluster())


def test_good_facts_pass(config):
    plan = plan_of(config, Work(10**12, 10**9, 10**6, 10**6))
    findings = judge(config, pair(), plan)
    assert {finding.status for finding in findings} == {"ok"}
    assert failure(findings) is None
    assert max(map(len, table(findings).splitlines())) <= 80


def test_what_cannot_fit_is_refused_with_what_to_change(config):
    large = plan_of(config, Work(10**12, 50 * 10**9, 10**6, 10**6))
    finding = estimates.check_memory(pair(), large, config)
    assert finding.status == "failed"
    assert "100.0 GB a process, estimated, of 80.0 GB" in finding.found
    assert "engine.accumulation 2 or engine.recompute True" in finding.advice
    heavy = plan_of(config, Work(10**12, 10**6, 8 * 10**9, 8 * 10**9))
    assert "try engine.zero_stage 2 or" in estimates.check_memory(pair(), heavy, config).advice
    with pytest.raises(UsageError, match="preflight: memory: 100.0 GB"):
        raise failure([finding])


def test_a_table_wraps():
    shown = table([Finding("data", "failed", "word " * 40, "do this")]).splitlines()
    assert len(shown) > 2 and max(map(len, shown)) <= 80
    assert shown[0].startswith("data  failed   word")


def test_sizes_are_shared_out(config, tmp_path):
    import shutil

    (place,) = config.data.train
    copy = shutil.copytree(place, tmp_path / "copy")
    config = replace(config, data=replace(config.data, train=(str(copy),)))
    counts = [facts.check_sizes(config, rank, 2)[1] for rank in (0, 1)]
    assert sum(counts) == 1 + len(list(copy.glob("*.tar")))
    shard = sorted(copy.glob("*.tar"))[0]
    with shard.open("r+b") as file:
        file.truncate(100)
    found = [facts.check_sizes(config, rank, 2)[0] for rank in (0, 1)]
    assert sum(map(len, found)) == 1
    assert f"{shard} has 100 bytes" in str(found)
    shard.unlink()
    with pytest.raises(DataError, match="preflight: data: .* is missing"):
        preflight(config, torch.device("cpu"), DATA, None)


@pytest.mark.parametrize(("world", "added", "why"), [(1000, 1000, ""), (3, 2, "wrong sum")])
def test_an_all_reduce_is_measured_and_its_sum_checked(monkeypatch, world, added, why):
    """1000⁴ is no float32; a network that loses a process gives another sum."""

    def all_reduce(values, async_op):
        values.copy_(sum(values.clone() for _ in range(added)))
        return SimpleNamespace(is_completed=lambda: True, wait=lambda: None)

    monkeypatch.setattr(network, "BYTES", 4)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    seconds, found = network.measure_all_reduce(torch.device("cpu"), limit=60)
    assert (seconds is None) == bool(why)
    assert why in found


def test_a_folder_that_is_not_shared(tmp_path):
    (tmp_path / "token").touch()
    assert facts.try_folder(tmp_path, 1, "token", wait=0.1) == ""
    assert "is not the folder" in facts.try_folder(tmp_path, 1, "other", wait=0.1)
    assert os.listdir(tmp_path) == ["token"]


def test_a_refused_run_gives_its_folder_back(config, capsys, monkeypatch):
    monkeypatch.setattr(facts, "try_folder", lambda *_: "out of reach")
    command = ["pretrain", "smoke", "--data.train", *config.data.train]
    assert main([*command, "--run.out", str(config.run.out)]) == 2
    assert "preflight: folder: rank 0: out of reach" in capsys.readouterr().err
    assert not config.run.out.exists()


def test_several_processes_that_are_refused_give_their_folder_back(config, monkeypatch):
    def refuse(*args, **options):
        raise RankError("rank 0 of 2 on node-0: does not fit", 2)

    monkeypatch.setattr("gliomoe.pretrain.train.pretrain", refuse)
    command = ["pretrain", "smoke", "--data.train", *config.data.train]
    assert main([*command, "--run.out", str(config.run.out)]) == 2
    assert not config.run.out.exists()


def test_silent_processes_are_named_and_the_others_end_alike(monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(meeting, "_PARTING", 0.1)
    first, second = Meeting(0, 4, limit=0.2), Meeting(1, 4, limit=0.2)
    second.collect("here", 1)
    for asked in (lambda: first.collect("here", 0), lambda: second.announce("start", {})):
        with pytest.raises(DataError, match="no word from ranks 2, 3 within 0 s; look at"):
            asked()


def test_a_first_process_that_says_nothing_is_not_waited_for(monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_store", lambda: store)
    with pytest.raises(DataError, match="no word from rank 0 within 0 s"):
        Meeting(1, 2, limit=0.1).announce("start", {})


CHILD = """
import json, sys
import torch
from gliomoe.launch.options import parse, read_preset
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine.processes import start_processes
from gliomoe.pretrain.planning.preflight import check
from gliomoe.pretrain.planning.work import count_work

table, source = read_preset("smoke", "gliomoe.pretrain")
config = parse(PretrainConfig, json.loads(sys.argv[1]), "test", "", table, source)
work = count_work(config, "fp32")
device, _ = start_processes(config.engine)
check._FOLDER_LIMIT = 2.0
check.preflight(config, device, {"studies": 8, "fingerprint": "d1"}, work)
torch.distributed.barrier()
print("passed")
"""


def start(config, rank, port, cwd=None):
    """One process of two."""
    options = ["--data.train", *config.data.train, "--run.out", str(config.run.out)]
    child = [sys.executable, "-c", f"import logging; logging.basicConfig(level=20)\n{CHILD}"]
    return subprocess.Popen(
        [*child, json.dumps(options)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=cwd,
    )


def finish(processes):
    """What they said; none is left behind."""
    try:
        return [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_processes(config):
    port = free_port()
    processes = [start(config, rank, port) for rank in (0, 1)]
    (first, shown), (second, other) = finish(processes)
    assert (first, second) == ("passed\n", "passed\n"), shown + other
    assert "2 × cpu on 1 host" in shown and "all-reduce of 64 MB" in shown
    assert "devices" not in other
    assert os.listdir(config.run.out) == []


@pytest.mark.slow
def test_two_processes_that_do_not_share_a_folder_end_alike(config, tmp_path):
    config = replace(config, run=replace(config.run, out=Path("run")))
    port = free_port()
    places = [tmp_path / "a", tmp_path / "b"]
    for place in places:
        place.mkdir()
    processes = [start(config, rank, port, cwd=places[rank]) for rank in (0, 1)]
    for process, (_, said) in zip(processes, finish(processes), strict=True):
        assert process.returncode == 1
        assert "UsageError: preflight: folder: rank 1: run on " in said.strip().splitlines()[-1]
