"""`gliomoe finetune` and `gliomoe evaluate`, from the command line to the files they leave."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.identity.seen import Seen
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.run import FinetunedRun
from gliomoe.launch.cli import main
from gliomoe.models.checkpoint import read_config, save_checkpoint
from gliomoe.models.registry import create_model


class Cohort:
    """Training shards, test shards, label tables and a preset of two steps."""

    def __init__(self, folder: Path, build: Callable, write: Callable, preset: Path) -> None:
        self.folder, self.preset = folder, preset
        self.train, self.test = build(range(8)), build(range(20, 25))
        self.labels = write(folder / "labels.tsv", range(8))
        self.test_labels = write(folder / "test.tsv", range(20, 25))

    def finetune(self, out: Path, *more: str, labels: Path | None = None) -> int:
        where = ["--data", str(self.train), "--labels", str(labels or self.labels)]
        return main(["finetune", str(self.preset), *where, "--out", str(out), *more])

    def evaluate(self, run: Path, out: Path, *more: str) -> int:
        where = ["--data", str(self.test), "--labels", str(self.test_labels)]
        return main(["evaluate", str(run), *where, "--out", str(out), *more])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, ball_shards, write_labels, tiny_preset) -> Cohort:
    return Cohort(tmp_path_factory.mktemp("cohort"), ball_shards, write_labels, tiny_preset)


@pytest.fixture(scope="module")
def run(cohort) -> Path:
    """A finished run, its folds trained by two calls."""
    out = cohort.folder / "run"
    assert cohort.finetune(out, "--only_folds", "1") == 0
    assert [f["fold"] for f in json.loads((out / "summary.json").read_text())["folds"]] == [1]
    assert cohort.finetune(out) == 0
    return out


@pytest.fixture(scope="module")
def checkpoint(cohort, tiny_settings) -> Path:
    """A pretrained encoder that has seen case-3."""
    folder = cohort.folder / "checkpoint"
    shards = ShardSet.open(cohort.train)
    torch.manual_seed(5)
    save_checkpoint(
        folder,
        create_model("gliomoe_tiny", **tiny_settings),
        training={},
        preprocessing=shards.info["preprocess"],
        sequences=["t1", "flair"],
        card="",
        fingerprints=Seen.of_record(shards.record(shards.position("case-3"))).to_bytes(),
    )
    return folder


def error_of(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert "error" in lines[-1], lines
    return lines[-1]


def test_a_run_leaves_what_others_need(cohort, run):
    summary = json.loads((run / "summary.json").read_text())
    assert [fold["fold"] for fold in summary["folds"]] == [0, 1]
    assert set(summary["dice"]) == {"ET", "TC", "WT"}
    assert set(summary["thresholds"]) == {"idh"}
    splits = json.loads((run / "splits.json").read_text())
    assert sorted(k for fold in splits["folds"] for k in fold["validation"]) == [
        f"case-{n}" for n in range(8)
    ]
    opened = FinetunedRun.open(run)
    assert len(opened.models()) == 2
    assert opened.tasks == ("seg", "idh", "grade")
    assert opened.inference.window == (16, 16, 16)
    assert set(summary["smallest_ml"]) == {"ET", "TC", "WT"}
    assert opened.inference.smallest == summary["smallest_ml"]
    assert opened.preprocessing["spacing"] == 3.0
    single = FinetunedRun.open(run / "fold_1")
    assert len(single.models()) == 1 and set(single.thresholds) == {"idh"}
    assert not list(run.rglob("*.pt")) and not list(run.rglob("*.tmp"))


def test_a_finished_run_repeats_nothing(cohort, run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    assert cohort.finetune(run) == 0
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}


def test_evaluation_writes_figures_and_cases(cohort, run, tmp_path, capsys):
    assert cohort.evaluate(run, tmp_path / "e", "--against", str(run), "--json", "True") == 0
    printed = json.loads(capsys.readouterr().out)
    metrics = json.loads((tmp_path / "e/metrics.json").read_text())
    assert printed == metrics
    assert metrics["format"] == 2 and metrics["cases"] == 5 and metrics["folds"] == 2
    assert set(metrics["regions"]) == {"ET", "TC", "WT"}
    low, high = metrics["regions"]["WT"]["dice"]["interval"]
    assert 0 <= low <= metrics["regions"]["WT"]["dice"]["mean"] <= high <= 1
    assert metrics["markers"]["idh"]["cases"] == 5 and metrics["markers"]["idh"]["positive"] == 2
    assert metrics["markers"]["grade"]["reason"] == "no case of grade 3"
    (against,) = metrics["against"]
    assert against["dice"]["WT"]["difference"] == 0
    assert against["auc"]["idh"]["p_value"] == 1.0
    assert metrics["provenance"]["versions"]["torch"]
    rows = list(csv.DictReader((tmp_path / "e/cases.csv").open()))
    assert [row["key"] for row in rows] == [f"case-{n}" for n in range(20, 25)]
    mean = sum(float(row["WT_dice"]) for row in rows) / 5
    assert mean == pytest.approx(metrics["regions"]["WT"]["dice"]["mean"])
    assert rows[1]["idh_label"] == "1" and 0 <= float(rows[1]["idh_p"]) <= 1


def test_evaluation_prints_a_table(cohort, run, tmp_path, capsys):
    assert cohort.evaluate(run, tmp_path / "e") == 0
    text = capsys.readouterr().out
    assert "5 cases, 2 fold(s)" in text and "WT" in text and "AUC" in text
    assert cohort.evaluate(run, tmp_path / "flipped", "--flips") == 0
    tables = [(tmp_path / name / "cases.csv").read_text() for name in ("e", "flipped")]
    assert tables[0] != tables[1]
    both = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("e", "flipped")]
    assert [found["inference"]["flips"] for found in both] == [False, True]


def test_evaluation_refuses_cases_of_the_run(cohort, run, tmp_path, capsys):
    command = ["evaluate", str(run), "--data", str(cohort.train), "--labels", str(cohort.labels)]
    assert main([*command, "--out", str(tmp_path / "e")]) == 2
    assert "was trained on 8 of 8 cases: case-0, case-1" in error_of(capsys)
    assert not (tmp_path / "e").exists()


def test_same_seed_same_weights(cohort, run, tmp_path):
    assert cohort.finetune(tmp_path / "again", "--only_folds", "0") == 0
    weights = [r / "fold_0/model.safetensors" for r in (run, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_checkpoint_brings_its_encoder(cohort, checkpoint, tiny_settings, tmp_path):
    frozen = ["--freeze", "encoder", "--only_folds", "0", "--allow_leakage", "True"]
    assert cohort.finetune(tmp_path / "run", "--from", str(checkpoint), *frozen) == 0
    config = read_config(tmp_path / "run/fold_0")
    assert config["training"]["from"] == str(checkpoint)
    ours = FinetunedRun.open(tmp_path / "run").models()[0].encoder.state_dict()
    torch.manual_seed(5)
    theirs = create_model("gliomoe_tiny", **tiny_settings).encoder.state_dict()
    kept = [name for name in ours if torch.equal(ours[name], theirs[name])]
    changed = set(ours) - set(kept)
    assert changed and all(name.endswith("by_sequence") for name in changed)


def test_adapters_end_in_an_ordinary_checkpoint(cohort, checkpoint, tiny_settings, tmp_path):
    lora = ["--freeze", "lora", "--lora.rank", "2", "--only_folds", "0", "--allow_leakage", "True"]
    assert cohort.finetune(tmp_path / "run", "--from", str(checkpoint), *lora) == 0
    assert read_config(tmp_path / "run/fold_0")["training"]["freeze"] == "lora"
    ours = FinetunedRun.open(tmp_path / "run").models()[0].encoder.state_dict()
    torch.manual_seed(5)
    theirs = create_model("gliomoe_tiny", **tiny_settings).encoder.state_dict()
    assert ours.keys() == theirs.keys()
    changed = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert "blocks.0.attention.qkv.weight" in changed and "norm.weight" not in changed


def test_leakage_is_refused_by_name(cohort, checkpoint, tmp_path, capsys):
    assert cohort.finetune(tmp_path / "run", "--from", str(checkpoint)) == 2
    assert "was trained on 1 of 8 cases: case-3" in error_of(capsys)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_whose_tensors_do_not_fit(cohort, tiny_settings, tmp_path, capsys):
    model = create_model("gliomoe_tiny", **tiny_settings)
    model.encoder.registers = torch.nn.Parameter(torch.zeros(2, 7))
    about = {"training": {}, "preprocessing": {"spacing": 3.0}, "sequences": ["t1"]}
    save_checkpoint(tmp_path / "misfit", model, card="", **about)
    assert cohort.finetune(tmp_path / "run", "--from", str(tmp_path / "misfit")) == 1
    assert "registers is [2, 7], the model needs [4, 24]" in error_of(capsys)
    assert not (tmp_path / "run").exists()


def test_the_folder_of_a_run_is_no_checkpoint(cohort, run, tmp_path, capsys):
    assert cohort.finetune(tmp_path / "run", "--from", str(run)) == 2
    assert f"{run}: no checkpoint, it has no config.json" in error_of(capsys)
    assert not (tmp_path / "run").exists()


def test_a_missing_table_is_refused_before_the_checkpoint_is_read(
    cohort, checkpoint, tmp_path, capsys
):
    labels = tmp_path / "none.tsv"
    assert cohort.finetune(tmp_path / "run", "--from", str(checkpoint), labels=labels) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "none.tsv: no such label table" in line


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "gliomoe_base"], "--model gliomoe_base contradicts"),
        (["--arch.patch_size", "8"], "--arch.patch_size 8 contradicts"),
        (["--arch.spacing", "2"], "--arch.spacing 2.0 contradicts"),
    ],
)
def test_what_contradicts_a_checkpoint(cohort, checkpoint, tmp_path, capsys, more, message):
    assert cohort.finetune(tmp_path / "run", "--from", str(checkpoint), *more) == 2
    assert message in error_of(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--tasks", "seg", "tert"], 2, "task tert: no case has a known label"),
        (["--model", "gliomoe_huge"], 2, "unknown model 'gliomoe_huge'"),
        (["--from", "nowhere"], 2, "nowhere: neither a folder"),
        (["--folds", "9"], 2, "folds (9) must be at least 2, and shots (8) at least folds"),
        (["--folds", "2", "--only_folds", "3"], 2, "only_folds must lie between 0 and 1"),
        (["--data", "nowhere"], 2, "nowhere"),
        (["--labels", "none.tsv"], 2, "none.tsv: no such label table"),
        (["--tasks", "seg", "idhh"], 2, "idhh"),
        (["--freeze", "partial", "--train_blocks", "3"], 2, "gliomoe_tiny has 2 blocks"),
    ],
)
def test_wrong_calls_are_one_line_and_leave_nothing(cohort, tmp_path, capsys, more, code, message):
    assert cohort.finetune(tmp_path / "run", *more) == code
    assert message in error_of(capsys)
    assert not (tmp_path / "run").exists()


def test_a_table_of_other_cases(cohort, tmp_path, capsys, write_labels):
    labels = write_labels(tmp_path / "t.tsv", range(30, 32))
    assert cohort.finetune(tmp_path / "run", labels=labels) == 2
    message = error_of(capsys)
    assert f"{labels}: none of its cases is in the data: case-30, case-31; the data" in message
    assert not (tmp_path / "run").exists()


def test_a_dry_run_tells_of_the_cases_and_writes_nothing(cohort, tmp_path, capsys):
    assert cohort.finetune(tmp_path / "run", "--dry-run", "True") == 0
    assert capsys.readouterr().out.splitlines() == [
        "gliomoe_tiny from scratch: 8 of 8 labelled cases, 2 folds, up to 1 epochs",
        "fold 0: up to 2 steps",
        "  training    4 cases, seg 4, idh 0: 2 1: 2, grade 2: 2 4: 2",
        "  validation  4 cases, seg 4, idh 0: 2 1: 2, grade 2: 2 4: 2",
        "fold 1: up to 2 steps",
        "  training    4 cases, seg 4, idh 0: 2 1: 2, grade 2: 2 4: 2",
        "  validation  4 cases, seg 4, idh 0: 2 1: 2, grade 2: 2 4: 2",
    ]
    assert not (tmp_path / "run").exists()


def test_another_run_in_the_folder(cohort, run, capsys):
    assert cohort.finetune(run, "--seed", "4") == 2
    assert "holds another run, which differs in seed" in error_of(capsys)


def test_splits_of_another_run(cohort, run, tmp_path, capsys):
    splits = run / "splits.json"
    more = ["--splits", str(splits), "--seed", "9", "--only_folds", "0"]
    assert cohort.finetune(tmp_path / "again", *more) == 0
    assert (tmp_path / "again/splits.json").read_text() == splits.read_text()


def test_segmentation_needs_no_labels(cohort, tmp_path):
    command = ["finetune", str(cohort.preset), "--data", str(cohort.train), "--tasks", "seg"]
    assert main([*command, "--out", str(tmp_path / "run"), "--only_folds", "0"]) == 0
    command = ["evaluate", str(tmp_path / "run"), "--data", str(cohort.test)]
    assert main([*command, "--out", str(tmp_path / "e")]) == 0
    assert json.loads((tmp_path / "e/metrics.json").read_text())["markers"] == {}


def test_opening_what_is_no_run(tmp_path, checkpoint):
    with pytest.raises(UsageError, match="neither a fine-tuned run nor a checkpoint"):
        FinetunedRun.open(tmp_path)
    with pytest.raises(UsageError, match="not a fine-tuned model"):
        FinetunedRun.open(checkpoint)
