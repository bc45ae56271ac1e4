"""Two nodes with a network between them that can be cut: namespaces and a pair of interfaces."""

import os
import shutil
import signal
import subprocess
import uuid

import psutil
import pytest

from gliomoe.launch.nodes import SCRIPT

pytestmark = pytest.mark.slow


def ip(*words):
    return subprocess.run(("ip", *words), capture_output=True, text=True)


@pytest.fixture
def nodes(start, free_port):
    """The function that starts the script on both nodes, and the one that cuts the link."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    tag = uuid.uuid4().hex[:6]
    spaces, ends = [f"gm{tag}{side}" for side in "ab"], [f"v{tag}{side}" for side in "ab"]
    made = ip("netns", "add", spaces[0])
    if made.returncode:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    try:
        ip("netns", "add", spaces[1])
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for number, (space, end) in enumerate(zip(spaces, ends, strict=True), 1):
            ip("link", "set", end, "netns", space)
            ip("-n", space, "address", "add", f"10.77.0.{number}/24", "dev", end)
            ip("-n", space, "link", "set", "lo", "up")
            assert ip("-n", space, "link", "set", end, "up").returncode == 0

        def launch(*args):
            return [
                start(
                    "ip", "netns", "exec", space, SCRIPT, *args, GLIOMOE_NODES="2",
                    GLIOMOE_NODE_RANK=str(rank), MASTER_ADDR="10.77.0.1",
                    MASTER_PORT=str(free_port), GLIOMOE_JOIN="60",
                )
                for rank, space in enumerate(spaces)
            ]  # fmt: skip

        yield launch, lambda state: ip("-n", spaces[1], "link", "set", ends[1], state)
    finally:
        for process in start.left():
            process.send_signal(signal.SIGKILL)
        for space in spaces:
            ip("netns", "delete", space)


def test_a_cut_link_ends_both_nodes_and_the_same_command_continues(
    nodes, start, options, undisturbed, tmp_path, latest, assert_same_run
):
    launch, link = nodes
    run = tmp_path / "run"
    command = options(run, "--engine.timeout", "12")
    both = launch(*command)
    start.until(lambda: latest(run), *both)
    link("down")
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [1, 1], said
    assert all("error: " in words for words in said)
    assert start.all_end(5)

    link("up")
    both = launch(*command)
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "continues from" in said[0]
    assert_same_run(run, undisturbed)


def test_a_missing_node_is_named_before_the_first_step(start, options, tmp_path, free_port):
    env = {"GLIOMOE_NODES": "2", "MASTER_ADDR": "127.0.0.1", "GLIOMOE_JOIN": "3"}
    lonely = [
        start(
            SCRIPT, *options(tmp_path / "run"), GLIOMOE_NODE_RANK=str(rank),
            MASTER_PORT=str(free_port + rank), **env,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    for rank, process in enumerate(lonely):
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 1, said
        (line,) = said.splitlines()
        assert f"node {rank} of 2 did not meet the others at 127.0.0.1:" in line
    assert not (tmp_path / "run").exists()


def test_a_signal_while_nodes_are_awaited_is_75(start, options, tmp_path, free_port):
    process = start(
        SCRIPT, *options(tmp_path / "run"), GLIOMOE_NODES="2", GLIOMOE_NODE_RANK="0",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port),
    )  # fmt: skip
    node = psutil.Process(process.pid)
    start.until(lambda: node.net_connections("tcp"), process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=30) == 75
