"""Environment → commands of the nodes, without processes; restarts; exit codes."""

import json
import shlex

import pytest

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.launch.exit_codes import worst
from gliomoe.launch.nodes import SCRIPT, Machine, plan, read_hosts, slurm_port
from gliomoe.launch.restarts import check_progress, run_folder
from gliomoe.launch.start import count_gpus

ARGS = ("smoke", "--data.train", "a b/it's $HOME", "--run.out", "run")
MEETING = {"MASTER_ADDR": "m", "MASTER_PORT": "77"}
STEP = {
    "SLURM_JOB_ID": "812",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NODEID": "1",
}


def machine(gpus=0, names=("n1",)):
    answers = {
        ("show", "hostnames", "n[1-2]"): "n1\nn2\n",
        ("show", "node", "n1", "--oneliner"): "NodeName=n1 NodeAddr=10.0.0.7 NodeHostName=x\n",
    }
    return Machine(lambda: gpus, lambda *args: answers[args], lambda host: host in names)


def flags(command):
    """Options of `torchrun` in the command of a node."""
    before = command[: command.index("--module")]
    return dict(zip(before, before[1:], strict=False))


@pytest.mark.parametrize(
    ("env", "gpus", "count"),
    [
        ({}, 0, "1"),
        ({}, 8, "8"),
        ({"GLIOMOE_PROCESSES": "3"}, 8, "3"),
        ({"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "1"}, 4, "4"),
        ({"GLIOMOE_NODES": "1"}, 2, "2"),
        ({"PET_NNODES": "1", "PET_NPROC_PER_NODE": "auto"}, 2, "2"),
    ],
)
def test_one_machine(env, gpus, count):
    launch = plan(env, ARGS, machine(gpus))
    (command,) = launch.commands
    assert launch.way == "here"
    assert "--standalone" in command
    assert flags(command)["--nproc-per-node"] == count
    assert command[-len(ARGS) - 2 :] == ("gliomoe.launch.worker", "pretrain", *ARGS)


@pytest.mark.parametrize(
    "env",
    [
        {"GLIOMOE_NODES": "4", "GLIOMOE_NODE_RANK": "2", **MEETING},
        {"GLIOMOE_NODES": "4", "JOB_COMPLETION_INDEX": "2", **MEETING},
        {
            "PET_NNODES": "4", "PET_NODE_RANK": "2", "PET_MASTER_ADDR": "m",
            "PET_MASTER_PORT": "77", "PET_NPROC_PER_NODE": "1", "RANK": "2", "WORLD_SIZE": "4",
        },
    ],
)  # fmt: skip
def test_a_rendezvous_of_the_users(env):
    (command,) = plan({**env, "GLIOMOE_JOIN": "9"}, ARGS, machine()).commands
    found = flags(command)
    assert found["--nnodes"] == "4"
    assert found["--node-rank"] == "2"
    assert (found["--master-addr"], found["--master-port"]) == ("m", "77")
    assert found["--rdzv-conf"] == "timeout=9"


def test_an_allocation_starts_the_script_on_every_node():
    env = {"SLURM_JOB_ID": "5", "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "8"}
    for step in ({}, {"SLURM_STEP_ID": "4294967290"}):  # in a batch script, in an interactive shell
        launch = plan({**env, **step}, ARGS, machine())
        (command,) = launch.commands
        assert launch.way == "srun"
        assert command[-len(ARGS) - 1 :] == (str(SCRIPT), *ARGS)
        assert {"--nodes=3", "--ntasks=3", "--cpus-per-task=8"} <= set(command)


@pytest.mark.parametrize(("names", "address"), [(("n1",), "n1"), ((), "10.0.0.7")])
def test_a_step_meets_on_its_first_node(names, address):
    (command,) = plan(STEP, ARGS, machine(2, names)).commands
    found = flags(command)
    assert found["--master-addr"] == address
    assert found["--node-rank"] == "1"
    assert found["--nproc-per-node"] == "2"
    assert found["--master-port"] == str(slurm_port(812, 0, 0))


def test_jobs_of_an_array_and_restarts_have_ports_of_their_own():
    ports = {slurm_port(job, restart, 0) for job in range(900, 1000) for restart in range(8)}
    assert len(ports) == 800
    assert all(10_000 <= port < 30_000 for port in ports)


def test_hosts_get_the_folder_the_environment_and_the_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hosts = tmp_path / "hosts"
    hosts.write_text("# mine\nnode-a slots=4\n\nnode-b  # no slots\n")
    env = {
        "GLIOMOE_HOSTFILE": str(hosts), "GLIOMOE_SSH": "ssh -p 2222", "NCCL_DEBUG": "WARN it",
        "AWS_SECRET_ACCESS_KEY": "secret", "HF_TOKEN": "secret", "PATH": "/bin",
        "MASTER_PORT": "4000",
    }  # fmt: skip
    launch = plan(env, ARGS, machine())
    assert launch.way == "ssh"
    assert launch.names == ("node-a", "node-b")
    for rank, command in enumerate(launch.commands):
        assert command[:4] == ("ssh", "-p", "2222", launch.names[rank])
        words = shlex.split(command[4])
        assert words[:6] == ["cd", str(tmp_path), "&&", "exec", "env", "-u"]
        assert words[-len(ARGS) - 1 :] == [str(SCRIPT), *ARGS]
        assert {"GLIOMOE_NODES=2", f"GLIOMOE_NODE_RANK={rank}", "MASTER_ADDR=node-a"} <= set(words)
        assert {"MASTER_PORT=4000", "NCCL_DEBUG=WARN it", "PATH=/bin"} <= set(words)
        assert ("GLIOMOE_PROCESSES=4" in words) == (rank == 0)
        assert "secret" not in command[4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no host"),
        ("a\nb\na slots=2", "line 3: a is there twice"),
        ("a 4", "line 1: expected `host` or `host slots=N`"),
        ("-oProxyCommand=x", "line 1: expected `host`"),
    ],
)
def test_a_host_file_that_means_nothing(tmp_path, text, message):
    (tmp_path / "hosts").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_hosts(tmp_path / "hosts")
    with pytest.raises(UsageError, match="no such host file"):
        read_hosts(tmp_path / "none")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"GLIOMOE_PROCESSES": "two"}, "GLIOMOE_PROCESSES=two: must be a whole number from 1"),
        ({"GLIOMOE_NODES": "2"}, "GLIOMOE_NODE_RANK or PET_NODE_RANK or JOB_COMPLETION_INDEX is"),
        ({"GLIOMOE_NODES": "2", "GLIOMOE_NODE_RANK": "2"}, "rank 2 of 2 nodes"),
        ({"GLIOMOE_NODES": "2", "GLIOMOE_NODE_RANK": "0"}, "MASTER_ADDR or PET_MASTER_ADDR is not"),
        ({"PET_NNODES": "1:4"}, "PET_NNODES=1:4: must be a whole number"),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "8"}, "8 tasks on 2 nodes: give it --ntasks-per-node=1"),
        ({"TORCHELASTIC_RUN_ID": "x"}, "run the script once a node"),
    ],
)
def test_what_cannot_be_started_is_refused(env, message):
    with pytest.raises(UsageError, match=message):
        plan(env, ARGS, machine())


@pytest.mark.parametrize(
    ("visible", "count"), [("0,1,3", 3), ("GPU-1f", 1), ("", 0), ("0,-1,1", 1)]
)
def test_gpus_that_are_hidden_do_not_count(monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == count


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([0, 75], 75), ([75, 1, 0], 1), ([1, 2, 75], 2), ([-9, 75], 1), ([137, 0], 1)],
)
def test_the_worst_exit_code_counts(codes, code):
    assert worst(codes) == code


def test_the_run_folder_is_found_in_arguments_and_files(tmp_path):
    assert str(run_folder(ARGS)) == "run"
    assert str(run_folder(("smoke", "--run.out=a", "--run.out", "b"))) == "b"
    file = tmp_path / "mine.toml"
    file.write_text('[run]\nout = "c"\n')
    assert str(run_folder((str(file),))) == "c"
    assert run_folder(("smoke",)) is None


def test_two_restarts_without_a_new_checkpoint_are_enough(tmp_path):
    def started(restart, step, job="7"):
        if step is not None:
            (tmp_path / "run/checkpoints").mkdir(parents=True, exist_ok=True)
            (tmp_path / "run/run.json").touch()
            (tmp_path / "run/checkpoints/latest").write_text(step)
        env = {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(restart)}
        check_progress(env, ("smoke", "--run.out", str(tmp_path / "run")))

    started(0, None)
    started(1, None)
    with pytest.raises(DataError, match="no checkpoint after the start in two restarts of job 7"):
        started(2, None)
    started(1, "step_5")
    started(2, "step_5")
    with pytest.raises(DataError, match="no checkpoint after step_5 in two restarts"):
        started(3, "step_5")
    started(3, "step_9")
    started(4, "step_9")
    started(5, "step_12")
    started(6, "step_12")
    started(0, "step_12", job="8")
    started(1, "step_12", job="8")
    lines = (tmp_path / "run/restarts.jsonl").read_text().splitlines()
    assert json.loads(lines[-1]) == {"job": "8", "restart": 1, "found": "step_12"}
