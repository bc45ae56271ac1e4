"""`launch/k8s/pretrain.yaml`: its fields, and its environment with two processes as its pods."""

import pytest
import yaml

from gliomoe.launch.exit_codes import INTERRUPTED
from gliomoe.launch.nodes import SCRIPT

MANIFEST = SCRIPT.with_name("k8s") / "pretrain.yaml"


@pytest.fixture(scope="module")
def service():
    """The headless service."""
    return next(d for d in yaml.safe_load_all(MANIFEST.read_text()) if d["kind"] == "Service")


@pytest.fixture(scope="module")
def job():
    """The indexed job."""
    return next(d for d in yaml.safe_load_all(MANIFEST.read_text()) if d["kind"] == "Job")


@pytest.fixture(scope="module")
def environment(job):
    """What the manifest sets for the script."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_pods_find_each_other(service, job, environment):
    pods = job["spec"]["template"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= pods["metadata"]["labels"].items()
    assert pods["spec"]["subdomain"] == service["metadata"]["name"]
    first, subdomain = environment["MASTER_ADDR"].split(".")
    assert (first, subdomain) == (f"{job['metadata']['name']}-0", pods["spec"]["subdomain"])
    assert int(environment["MASTER_PORT"]) == service["spec"]["ports"][0]["port"]


def test_all_nodes_are_counted_alike(job, environment):
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"] == int(environment["GLIOMOE_NODES"])


def test_exit_codes_decide_what_happens_to_pods(job):
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    rules = job["spec"]["podFailurePolicy"]["rules"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    by_code = {
        code: rule["action"]
        for rule in rules
        for code in rule.get("onExitCodes", {}).get("values", [])
    }
    assert by_code == {2: "FailJob", INTERRUPTED: "Ignore"}
    names = {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule}
    assert names == {container["name"]}
    conditions = [rule for rule in rules if "onPodConditions" in rule]
    assert [rule["action"] for rule in conditions] == ["Ignore"]


def test_a_pod_has_time_shared_memory_and_gpus(job, environment):
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] > int(environment["GLIOMOE_GRACE"])
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    assert container["resources"]["limits"]["nvidia.com/gpu"] >= 1
    run = container["args"][container["args"].index("--run.out") + 1]
    assert any(run.startswith(f"{path}/") for path in mounts)
    assert container["command"] == ["/opt/gliomoe/launch/pretrain.sh"]


def test_the_script_reads_what_the_manifest_sets(environment):
    sources = [SCRIPT.with_name(name).read_text() for name in ("nodes.py", "torchrun.py")]
    for name in (*environment, "JOB_COMPLETION_INDEX"):
        assert any(f'"{name}"' in source for source in sources), name


@pytest.mark.slow
def test_two_pods_are_one_run(
    environment, free_port, options, undisturbed, assert_same_run, start, tmp_path
):
    local = {"MASTER_ADDR": "127.0.0.2", "MASTER_PORT": str(free_port)}  # instead of the service
    run = tmp_path / "run"
    pods = [
        start(SCRIPT, *options(run), **{**environment, **local, "JOB_COMPLETION_INDEX": index})
        for index in ("1", "0")
    ]
    said = [pod.communicate(timeout=150)[0] for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], said
    assert_same_run(run, undisturbed)
    assert start.all_end(5)
