"""`gliomoe pretrain plan`, and the tables that it wrote."""

import importlib.util
import json
from pathlib import Path

import pytest

from gliomoe.launch.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables():
    """The script that writes the tables."""
    spec = importlib.util.spec_from_file_location(
        "scaling_tables", ROOT / "tests/benchmarks/scaling_tables.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plan(capsys, *arguments):
    code = main(["pretrain", "plan", "smoke", "--json", *map(str, arguments)])
    printed = capsys.readouterr()
    return json.loads(printed.out) if code == 0 else (code, printed.err)


def test_the_committed_tables_are_what_the_command_says(tables):
    said = tables.make()
    assert tables.joined(said) in tables.DOCUMENT.read_text("utf-8")
    for preset, table in said.items():
        hours = tables.duration(table, tables.PRESETS[preset])
        comment = (ROOT / f"pretrain/configs/{preset}.toml").read_text("utf-8")
        assert f"# Duration: about {hours} GPU hours on H100, estimated" in comment


def test_more_gpus_than_studies(capsys):
    few, many = plan(capsys, "--gpus", 4, 16, "--optim.batch", 4)["rows"]
    assert (few["batch"], few["steps"], few["per_gpu"]) == (4, 20, 1)
    assert (many["batch"], many["steps"], many["binds"]) == (16, 5, "batch")
    assert "optim.batch 16, run.steps 5" in many["change"]


def test_a_measurement_replaces_the_assumption(capsys, tmp_path):
    steps = {str(n): {"studies": n, "step_s": 0.1 + 0.3 * n} for n in (1, 2, 4)}
    content = {
        "device": {"device": "NVIDIA H100 80GB HBM3"},
        "models": {
            "gliomoe_tiny": {
                "flops": {"pretraining_forward": 10**11},
                "pretraining": {"batches": {**steps, "8": "out of memory"}},
            }
        },
    }
    measured = tmp_path / "gpu_check.json"
    measured.write_text(json.dumps(content))
    nothing_else = ("--monitor.pictures-every", 0, "--cluster.disk-gb-s", 1e9)
    arguments = ("--gpus", 1, *nothing_else, "--measured", measured)
    found = plan(capsys, *arguments)
    assert found["source"] == "measured: gpu_check.json, NVIDIA H100 80GB HBM3"
    low, high = found["rows"][0]["hours"]
    assert low == high
    assert low * 3600 / 20 == pytest.approx(0.1 + 3 * 4 * 210054144 / 1e12, rel=1e-3)
    content["models"]["gliomoe_base"] = content["models"].pop("gliomoe_tiny")
    measured.write_text(json.dumps(content))
    code, said = plan(capsys, *arguments)
    assert code == 2 and "no measured steps of gliomoe_tiny; it has gliomoe_base" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gpu", "Voodoo"), "unknown gpu 'Voodoo'; known: H200"),
        (("--gpus", "0"), "gpus must be positive"),
        (("--mfu", "0.5", "0.1"), "the smaller first"),
        (("--measured", "nowhere.json"), "nowhere.json: neither a run nor a JSON file"),
    ],
)
def test_wrong_calls(capsys, arguments, message):
    code, said = plan(capsys, *arguments)
    assert code == 2 and message in said
