"""`gliomoe models`: the table, JSON, and what it measures."""

import json

import pytest

from gliomoe.launch.cli import main
from gliomoe.launch.commands import models
from gliomoe.models import create_model, list_models
from gliomoe.models.model import TASKS
from gliomoe.models.registry import parameter_counts

PUBLISHED = {"parameters_total": 120e6, "parameters_active": 62e6, "flops": 275e9}


def test_json_has_sizes_and_flops(capsys):
    assert main(["models", "gliomoe_tiny", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    total, active = parameter_counts(create_model("gliomoe_tiny", TASKS))
    assert (row["parameters_total"], row["parameters_active"]) == (total, active)
    assert row["tasks"] == list(TASKS)
    # At least the active weights once per token of 8³, four sequences fused to one.
    assert row["flops"] > 2 * 16**3 * 1e6 and row["flops_size"] == 128


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_flops_of_every_model_can_be_counted(name):
    row = models.describe(name)
    assert row["flops"] > 0 and row["paper"]
    assert set(row["published"]) <= set(PUBLISHED)
    json.dumps(row)


def a_row(name="gliomoe_base", published=None, **more):
    return {
        "name": name,
        "tasks": list(TASKS),
        "parameters_total": 116_500_000,
        "parameters_active": 74_100_000,
        "flops": 1_542_000_000_000,
        "flops_size": 128,
        "paper": "A system of a long name and its paper, 2025",
        "published": published or {},
        **more,
    }


@pytest.mark.parametrize("bench", [False, True])
def test_table_is_aligned_and_fits(bench):
    found = {"step_s": 12.3, "peak_memory_bytes": 3e9, "size": 64, "repeats": 5, "threads": 2}
    more = {"bench": found} if bench else {}
    rows = [a_row(**more), a_row("magpie_mednext_longer", PUBLISHED, **more)]
    head, first, second, *_ = lines = models._table(rows, bench).splitlines()
    assert max(map(len, lines)) <= 120
    assert "(120 M)" in second and "(62 M)" in second and "(275)" in second
    assert first.index("116.5 M") == second.index("116.5 M")
    assert first.index("1542") == second.index("1542")
    if bench:
        assert first.endswith("12.30 s  3.00 GB") and head.endswith("memory")
    else:
        assert head.index("paper") == first.index("A system") == second.index("A system")


def test_no_match_offers_the_nearest(capsys):
    assert main(["models", "gliomo_tiny"]) == 2
    shown = capsys.readouterr().err
    assert "perhaps gliomoe_tiny" in shown and ", ".join(list_models()) in shown


def test_settings_of_the_measurement_are_checked(capsys):
    assert main(["models", "--bench", "--repeats", "0"]) == 2
    assert "must be positive" in capsys.readouterr().err


@pytest.mark.slow
def test_bench_measures_a_step(capsys):
    options = ["--bench", "--size", "16", "--repeats", "1", "--json"]
    assert main(["models", "gliomoe_tiny", *options]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["bench"]["step_s"] > 0
    # Weights and gradients at least.
    assert row["bench"]["peak_memory_bytes"] > 2 * 4 * row["parameters_total"]


@pytest.mark.slow
def test_a_step_that_fails_is_an_error(capsys):
    from gliomoe.data_shards.errors import UsageError
    from gliomoe.launch.bench.step import StepBench, step_in_own_process

    with pytest.raises(UsageError, match="a step at 16³ failed: .*unknown model 'gliomoe_none'"):
        step_in_own_process("gliomoe_none", StepBench(16, 1))
