"""Two nodes reached through a remote shell that runs its command on this machine."""

import signal

import pytest

from gliomoe.launch.nodes import SCRIPT

pytestmark = pytest.mark.slow


@pytest.fixture
def hosts(tmp_path):
    """The environment of a launch on two addresses of the loopback, one process each."""
    (tmp_path / "hosts").write_text("127.0.0.1 slots=1\n127.0.0.2 slots=1\n")
    shell = tmp_path / "shell.sh"
    # As ssh does, one string for a shell at the other end; a session of its own is out of reach of
    # signals to the caller, and only the end of its input tells it that the caller is gone.
    shell.write_text('#!/bin/sh\nexec setsid --fork --wait sh -c "$2"\n')
    shell.chmod(0o755)
    return {"GLIOMOE_HOSTFILE": str(tmp_path / "hosts"), "GLIOMOE_SSH": str(shell)}


def test_all_hosts_stop_with_the_launcher(hosts, start, options, tmp_path, latest):
    run = tmp_path / "it's a run"  # a quote and spaces, through two shells
    command = (SCRIPT, *options(run, "--run.checkpoint_every", "3"))
    process = start(*command, **hosts)
    start.until(lambda: latest(run), process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 75, said
    assert start.all_end(1)
    assert "Traceback" not in said

    # The next launcher dies without a word: its hosts notice, save and end.
    stopped_at = latest(run)
    process = start(*command, **hosts)
    start.until(lambda: latest(run) != stopped_at, process)
    process.kill()
    assert start.all_end(60)


def test_hosts_that_cannot_be_reached_are_named(hosts, start, options, tmp_path):
    (tmp_path / "shell.sh").write_text("#!/bin/sh\nexit 255\n")
    process = start(SCRIPT, *options(tmp_path / "run"), **hosts)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1, said
    assert said == "pretrain.sh: 127.0.0.1 ended with exit code 255\n"
    assert not (tmp_path / "run").exists()
