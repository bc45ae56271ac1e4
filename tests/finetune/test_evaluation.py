"""`gliomoe evaluate` on models of random weights: metrics.json key by key, groups, comparison."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gliomoe.finetune.evaluate
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.study import Study
from gliomoe.finetune.calibration import NOT_FITTED
from gliomoe.finetune.cases import labelled_cases
from gliomoe.finetune.evaluation import cases
from gliomoe.finetune.evaluation.groups import find_groups
from gliomoe.finetune.inference import predict_study
from gliomoe.finetune.metrics.lesions import SIZES
from gliomoe.finetune.predictor import Predictor
from gliomoe.launch.cli import main
from gliomoe.models.checkpoint import save_checkpoint
from gliomoe.models.registry import create_model

NUMBERS = range(20, 33)
TASKS = ("seg", "idh", "grade")
TEMPERATURE = {"value": 2.0, "cases": 20, "reason": None}
DOCUMENT = Path(gliomoe.finetune.evaluate.__file__).resolve().parent / "METRICS.md"
NAMED = {"ET", "TC", "WT", "mean", "seg", "idh", "grade", *SIZES, "2", "3", "4"}
"""Keys that are names of regions, tasks, size classes and grades."""
NO_KEYS = set(
    re.findall(
        r"\S+",
        "gliomoe evaluate participants tsv null i r or task size grouping group low high "
        "mean seg idh 1p19q tert hgg grade regions validation delong wilcoxon mcnemar",
    )
)
"""Words of the document in type that are values, places in a path, or names as above."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, ball_shards) -> Path:
    """Two checkpoints `one` and `two`, `test` shards, their label table with a protocol."""
    folder = tmp_path_factory.mktemp("evaluation")
    shards = ball_shards(NUMBERS)
    (folder / "test").symlink_to(shards)
    preprocessing = json.loads((shards / "dataset.json").read_text())["preprocess"]
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        training = {
            "kind": "finetune",
            "window": [20, 20, 20],
            "thresholds": {"idh": 0.5},
            "temperatures": {"idh": TEMPERATURE} if name == "one" else {},
        }
        save_checkpoint(
            folder / name,
            create_model("gliomoe_tiny", TASKS, patch_size=4),
            training=training,
            preprocessing=preprocessing,
            sequences=["t1", "flair"],
            card="a test",
        )
    lines = ["case\tIDH\tgrade\tProtocol"]
    for n in NUMBERS:
        protocol = "A" if n < 26 else "n/a" if n == 26 else "B"
        lines.append(f"case-{n}\t{'mutant' if n % 2 else 'NOS' if n == 20 else 'wt'}\t"
                     f"{2 if n % 2 else 4}\t{protocol}")  # fmt: skip
    (folder / "labels.tsv").write_text("\n".join(lines) + "\n")
    return folder


def evaluate(folder: Path, out: Path, *more: str) -> dict[str, Any]:
    where = ["--data", str(folder / "test"), "--out", str(out)]
    assert main(["evaluate", str(folder / "one"), *where, *more]) == 0
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def out(folder) -> Path:
    return folder / "out"


@pytest.fixture(scope="module")
def metrics(folder, out) -> dict[str, Any]:
    others = ["--against", str(folder / "two"), str(folder / "one")]
    return evaluate(folder, out, "--labels", str(folder / "labels.tsv"), *others)


@pytest.fixture(scope="module")
def rows(metrics, out) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "cases.csv").open()))


def walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every place in a JSON value."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner, path)


def test_every_key_is_documented_and_every_documented_key_is_there(metrics):
    described = {k: v for k, v in metrics.items() if k not in ("provenance", "conventions")}
    found = {key for path, _ in walk(described) for key in path}
    groups = {k for grouping in metrics["groups"].values() for k in grouping["values"]}
    found = (found | set(metrics)) - NAMED - groups
    text = DOCUMENT.read_text("utf-8").partition("`cases.csv`")[0]
    codes = re.findall(r"`([^`]+)`", text)
    documented = set(re.findall(r"[a-z_0-9]*[a-z_][a-z_0-9]*", " ".join(codes)))
    assert found <= documented, found - documented
    assert documented - NO_KEYS <= found, documented - NO_KEYS - found


def test_every_figure_has_its_form(metrics):
    figures = 0
    for path, value in walk(metrics):
        if isinstance(value, dict) and "interval" in value and "p_value" not in value:
            assert set(value) in ({"mean", "interval"}, {"value", "interval"}), path
            figures += 1
        if path and path[-1] == "interval" and isinstance(value, list):
            assert len(value) == 2 and value[0] <= value[1], path
    assert figures > 100
    assert metrics["format"] == 2 and metrics["cases"] == len(NUMBERS)


def test_groups(metrics, rows):
    groups = metrics["groups"]
    (name,) = groups["sequences"]["values"]
    assert set(name.split("+")) == {"t1", "flair"}
    assert groups["protocol"]["unknown"] == 1 and groups["protocol"]["reason"] is None
    assert {k: v["cases"] for k, v in groups["protocol"]["values"].items()} == {"A": 6, "B": 6}
    assert set(groups["grade"]["values"]) == {"2", "4"}
    in_a = [float(row["mean_dice"]) for row in rows if row["group_protocol"] == "A"]
    found = groups["protocol"]["values"]["A"]["mean_dice"]["mean"]
    assert found == pytest.approx(sum(in_a) / 6)
    marker = groups["grade"]["values"]["2"]["markers"]["idh"]
    assert marker["auc"] is None and marker["reason"] == "all 6 cases are of one class"


def test_grades_of_a_run_that_does_not_learn_them(folder):
    shards, labels = ShardSet.open(folder / "test"), folder / "labels.tsv"
    groups = find_groups(shards, labelled_cases(shards, labels, ["seg"]), labels, folder)
    assert groups["case-20"]["grade"] == "4" and groups["case-21"]["grade"] == "2"


def test_the_table_of_cases_has_everything(metrics, rows, out):
    assert [row["key"] for row in rows] == [f"case-{n}" for n in NUMBERS]
    for row in rows:
        raw, p = float(row["idh_p_raw"]), float(row["idh_p"])
        odds = (raw / (1 - raw)) ** 0.5  # temperature 2
        assert p == pytest.approx(odds / (1 + odds), abs=1e-5)
        assert row["idh_called"] == ("1" if p >= 0.5 else "0")
    assert [row["idh_label"] for row in rows[:3]] == ["", "1", "0"]
    dice = [float(row["WT_dice"]) for row in rows]
    assert sum(dice) / len(dice) == pytest.approx(metrics["regions"]["WT"]["dice"]["mean"])
    lesions = metrics["regions"]["WT"]["lesions"]
    assert sum(int(row["WT_lesions_found"]) for row in rows) == lesions["found"]
    assert (out / "cases_against_2.csv").read_text() == (out / "cases.csv").read_text()
    assert (out / "cases_against_1.csv").read_text() != (out / "cases.csv").read_text()


def test_calibration_before_and_after(metrics):
    found = metrics["markers"]["idh"]["calibration"]
    assert (found["temperature"], found["validation_cases"], found["reason"]) == (2.0, 20, None)
    for when in ("before", "after"):
        assert sum(b["count"] for b in found[when]["reliability"]) == 12
    assert found["before"]["log_loss"] != found["after"]["log_loss"]
    grade = metrics["markers"]["grade"]["calibration"]
    assert grade["temperature"] == 1 and grade["reason"] == "the model carries none"
    assert grade["before"] == grade["after"]


def test_prediction_is_calibrated_alike(folder):
    predictor = Predictor.open(folder / "one", "cpu")
    noise = np.random.default_rng(0).uniform(1, 2, (16, 16, 16)).astype(np.float32)
    study = Study("case", "case", {"t1": noise}, np.diag([3.0, 3.0, 3.0, 1.0]))
    assert predictor.temperatures["idh"].value == 2 and predictor.temperatures["grade"].value == 1
    plain = replace(predictor, temperatures=dict.fromkeys(("idh", "grade"), NOT_FITTED))(study)
    markers = predictor(study).markers
    assert torch.allclose(markers["idh"], (plain.markers["idh"].logit() / 2).sigmoid())
    assert torch.equal(markers["grade"], plain.markers["grade"])


def test_uncertainty_against_error(metrics, rows):
    found = metrics["uncertainty"]["seg"]
    assert found["aurc_best"] <= found["aurc"]["value"] and found["referred"] == 1
    assert found["score"]["value"] == pytest.approx(metrics["mean_dice"]["mean"])
    doubtful = max(rows, key=lambda row: float(row["uncertainty"]))
    kept = [float(row["mean_dice"]) for row in rows if row is not doubtful]
    assert found["score_after_referral"]["value"] == pytest.approx(sum(kept) / 12)
    wrong = [row["idh_called"] != row["idh_label"] for row in rows if row["idh_label"]]
    assert metrics["uncertainty"]["idh"]["aurc_chance"] == pytest.approx(sum(wrong) / 12)


def test_comparison_with_several_runs(metrics, folder):
    other, same = metrics["against"]
    assert (other["run"], same["run"]) == (str(folder / "two"), str(folder / "one"))
    for kind in ("dice", "auc", "accuracy"):
        for found in same[kind].values():
            assert (found["difference"], found["interval"]) == (0, [0, 0])
            assert (found["p_value"], found["p_holm"]) == (1, 1)
    tested = [d for c in (other, same) for k in ("dice", "auc", "accuracy") for d in c[k].values()]
    assert metrics["comparisons"] == len(tested) == 14
    smallest = min(d["p_value"] for d in tested)
    assert min(d["p_holm"] for d in tested) == pytest.approx(min(1, smallest * 14))
    assert all(d["p_holm"] >= d["p_value"] for d in tested)


def test_what_is_printed(folder, tmp_path, capsys):
    more = ["--labels", str(folder / "labels.tsv"), "--against", str(folder / "two")]
    evaluate(folder, tmp_path, *more)
    text = capsys.readouterr().out
    for part in ("13 cases, 1 fold(s)", "NSD 2 mm", "protocol A", "AURC", "p (Holm)", "dice WT"):
        assert part in text
    assert "grade: temperature 1, the model carries none" in text
    assert "protocol: not known of 1 cases" in text
    assert "AUC idh" in text and "empty true/predicted/both" in text
    assert max(len(line) for line in text.splitlines() if str(folder) not in line) <= 100


def test_without_labels_and_of_a_single_case(folder, ball_shards, tmp_path, capsys):
    command = ["evaluate", str(folder / "one"), "--data", str(ball_shards([40]))]
    assert main([*command, "--out", str(tmp_path / "e"), "--against", str(folder / "two")]) == 0
    metrics = json.loads((tmp_path / "e/metrics.json").read_text())
    assert metrics["markers"]["idh"]["reason"] == "no case has a known label"
    assert metrics["groups"]["grade"] == {
        "unknown": 1,
        "reason": "no case has a known grade",
        "values": {},
    }
    assert metrics["groups"]["protocol"]["reason"] == "no table of the cases has a column protocol"
    assert metrics["regions"]["WT"]["dice"]["interval"] is None
    assert metrics["uncertainty"]["seg"]["score_after_referral"] is None
    assert metrics["against"][0]["dice"]["WT"]["reason"] == "a single case"
    text = capsys.readouterr().out
    assert "protocol: no table of the cases has a column protocol" in text


def test_labels_of_test_cases_change_no_probability_and_no_call(folder, metrics, rows, tmp_path):
    text = (folder / "labels.tsv").read_text()
    turned = {"mutant": "wt", "wt": "mutant", "2": "4", "4": "2"}
    table = tmp_path / "turned.tsv"
    cells = [[turned.get(cell, cell) for cell in line.split("\t")] for line in text.splitlines()]
    table.write_text("\n".join("\t".join(line) for line in cells) + "\n")
    again = evaluate(folder, tmp_path, "--labels", str(table))["markers"]["idh"]
    other = list(csv.DictReader((tmp_path / "cases.csv").open()))
    for ours, theirs in zip(rows, other, strict=True):
        assert not ours["idh_label"] or ours["idh_label"] != theirs["idh_label"]
        for column in ("idh_p_raw", "idh_p", "idh_called", "grade_p2", "grade_called"):
            assert ours[column] == theirs[column]
    before = metrics["markers"]["idh"]
    assert again["calibration"]["temperature"] == before["calibration"]["temperature"] == 2
    assert again["threshold"] == before["threshold"]
    assert again["calibration"]["after"] != before["calibration"]["after"]


def test_the_table_tells_what_was_left_out_as_noise(folder, rows, tmp_path, monkeypatch):
    def with_specks(models, sample, config):
        noise = {"ET": 0.25} if sample.key == rows[0]["key"] else {}
        return replace(predict_study(models, sample, config), left_out=noise)

    monkeypatch.setattr(cases, "predict_study", with_specks)
    evaluate(folder, tmp_path)
    found = list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert [float(row["ET_left_out_ml"]) for row in found] == [0.25] + [0] * (len(rows) - 1)
    assert not any(float(row["WT_left_out_ml"]) for row in found)


def test_two_calls_are_equal(folder, metrics, tmp_path):
    others = ["--against", str(folder / "two"), str(folder / "one")]
    again = evaluate(folder, tmp_path, "--labels", str(folder / "labels.tsv"), *others)
    assert again == metrics
