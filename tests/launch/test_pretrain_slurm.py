"""A real Slurm of two virtual nodes runs `launch/slurm/pretrain.sbatch`."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


class Cluster:
    """Slurm's commands on the test's cluster."""

    def __init__(self, conf, start):
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        self.env |= {"SLURM_CONF": str(conf), "OMP_NUM_THREADS": "1", **start.env}
        self.start = start

    def __call__(self, *command):
        """Output of a command."""
        done = subprocess.run(
            [str(part) for part in command],
            env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, log, nodes, *args):
        """The number of a job of the batch script."""
        given = (f"--nodes={nodes}", f"--output={log}", "--parsable", "--time=30")
        return self("sbatch", *given, "launch/slurm/pretrain.sbatch", *args).strip()

    def state(self, job):
        """Such as RUNNING."""
        fields = dict(
            word.split("=", 1)
            for word in self("scontrol", "show", "job", "--oneliner", job).split()
            if "=" in word
        )
        return f"{fields['JobState']}, restart {fields['Restarts']}, {fields['NodeList']}"

    def go_on(self, job):
        """After a requeue Slurm waits two minutes; here two seconds.

        In the second of the requeue a node would take the new start for the one just ended.
        """
        self.start.until(lambda: self.state(job).startswith("PENDING"), seconds=60)
        time.sleep(2)
        self("scontrol", "update", f"JobId={job}", "StartTime=now")


@pytest.fixture(scope="module")
def slurm_conf(tmp_path_factory):
    """A cluster of two nodes."""
    lacking = [name for name in ("slurmctld", "slurmd", "munge", "srun") if not shutil.which(name)]
    if os.geteuid() or lacking:
        pytest.skip(f"a Slurm for tests needs root and slurm-wlm, munge (lacking: {lacking})")
    folder = tmp_path_factory.mktemp("slurm")
    script = Path(__file__).with_name("local_slurm.sh")
    try:
        done = subprocess.run([script, "start", folder, "2"], timeout=60, stderr=subprocess.PIPE)
        if done.returncode:
            pytest.skip(f"Slurm does not start here: {done.stderr.decode().strip()}")
        yield folder / "slurm.conf"
    finally:
        subprocess.run([script, "stop", folder], timeout=30, check=True)


@pytest.fixture
def cluster(slurm_conf, start):
    """The cluster, without jobs at the end."""
    cluster = Cluster(slurm_conf, start)
    yield cluster
    cluster("scancel", "--full", "--user=root")


def test_a_job_stops_in_time_requeues_itself_and_finishes(
    cluster, options, undisturbed, latest, assert_same_run, start, tmp_path
):
    run, log = tmp_path / "a run", tmp_path / "log"
    job = cluster.submit(log, 2, *options(run))
    start.until(lambda: latest(run))
    cluster("scancel", "--batch", "--signal=USR1", job)  # as `--signal=B:USR1@300` does
    cluster.go_on(job)
    start.until(lambda: cluster.state(job).startswith(("COMPLETED", "FAILED")))
    said = log.read_text()
    assert cluster.state(job).startswith("COMPLETED, restart 1, n[1-2]"), said
    assert said.count("queued again") == 1
    assert "continues from" in said
    assert "Traceback" not in said
    assert_same_run(run, undisturbed)
    assert start.all_end(5)


def test_a_lost_node_and_a_cancelled_job(cluster, options, latest, start, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    job = cluster.submit(log, "1-2", *options(run, "--run.steps", "2000"))
    start.until(lambda: latest(run))
    assert cluster.state(job) == "RUNNING, restart 0, n[1-2]"
    try:
        cluster("scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=test")
        cluster.go_on(job)
        before = latest(run)
        start.until(lambda: latest(run) != before)
        assert cluster.state(job) == "RUNNING, restart 1, n2", log.read_text()
    finally:
        cluster("scontrol", "update", "NodeName=n1", "State=RESUME")
    cluster("scancel", job)
    assert start.all_end(40), [process.cmdline() for process in start.left()]
    start.until(lambda: "CANCELLED" in cluster.state(job))
    assert cluster.state(job).startswith("CANCELLED, restart 1"), log.read_text()
