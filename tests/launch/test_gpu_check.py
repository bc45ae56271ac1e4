"""The GPU script: from a plain checkout, with few packages, and on the CPU."""

import json
import os
import subprocess
import sys
import sysconfig
import time
from functools import partial
from pathlib import Path

import pytest

from gliomoe.launch.bench import gpu, gpu_items
from gliomoe.pretrain.planning.hardware import find_gpu

ROOT = Path(__file__).resolve().parents[2]
NOT_NEEDED = (
    *("monai", "SimpleITK", "torchio", "deepspeed", "tyro", "blosc2", "scipy", "webdataset"),
    *("obstore", "nibabel", "sklearn", "nilearn", "pydicom", "matplotlib", "jinja2"),
    *("tensorboard", "einops", "timm", "torch_geometric", "entmax", "psutil"),
)


def test_needs_only_the_packages_of_its_header():
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({NOT_NEEDED!r})); "
        "import gliomoe.launch.bench.gpu"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_runs_from_a_checkout_on_the_cpu(tmp_path):
    # The interpreter below the environment, which knows the packages and no installed gliomoe.
    python, packages = os.path.realpath(sys.executable), sysconfig.get_paths()["purelib"]
    out = tmp_path / "gpu.json"
    options = ["--device", "cpu", "--quick", "--items", "pretraining", "inference", "experts_agree"]
    done = subprocess.run(
        [ROOT / "launch/gpu_check.sh", *options, "--out", out],
        env=os.environ | {"GLIOMOE_PYTHON": python, "PYTHONPATH": packages},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["device"]["device"] == "cpu" and found["setup"]["quick"] is True
    tiny = found["models"]["gliomoe_tiny"]
    step = tiny["pretraining"]["batches"]["1"]
    assert step["studies_per_s"] == pytest.approx(1 / step["step_s"], rel=0.01)
    assert "mfu" not in step
    assert tiny["inference"]["step_s"] > 0
    assert tiny["experts_agree"]["grouped"] == "not available on this device"
    assert found["machine"]["versions"]["torch"]


def test_utilisation():
    results = {
        "flops": {"pretraining_forward": 10**12},
        "pretraining": {
            "batches": {"4": {"studies": 4, "step_s": 0.5}, "8": "out of memory"},
        },
        "recomputed": {"left_out": "stopped"},
    }
    gpu._utilisation(results, 240.0, gpu_items.Setup())
    step = results["pretraining"]["batches"]["4"]
    assert step["model_tflops_per_s"] == 24.0 and step["mfu"] == 0.1


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_peak_by_name(name, peak):
    gpu = find_gpu(name)
    assert (gpu.peak_tflops if gpu else None) == peak


def fail():
    raise ValueError("no\nsuch thing")


def test_items_end_alone(capsys):
    begun = time.monotonic()
    assert "took more than 1 s" in gpu._limited("slow", partial(time.sleep, 60), 1)["left_out"]
    assert gpu._limited("wrong", partial(fail), 60)["error"] == "ValueError: no such thing"
    gone = gpu._limited("gone", partial(os._exit, 3), 60)
    assert gone["error"] == "the process ended without a result"
    assert time.monotonic() - begun < 30


def test_what_does_not_fit_the_time_is_named():
    found = gpu.run_all(["gliomoe_tiny", "none"], gpu._QUICK, 0.1, ["flops"])
    assert found["models"]["gliomoe_tiny"]["flops"]["left_out"] == "the 0.1 minutes were used up"
    assert "not registered" in found["models"]["none"]["flops"]["left_out"]


def test_unknown_model(capsys):
    with pytest.raises(SystemExit) as stop:
        gpu.main(["--models", "gliomoe_none"])
    assert stop.value.code == 2
    assert "unknown model 'gliomoe_none'" in capsys.readouterr().err
