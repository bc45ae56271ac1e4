"""Other systems than the flagship through the same commands; what they need is asked for first."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from gliomoe.launch.cli import main
from gliomoe.models.checkpoint import read_config
from gliomoe.models.glioma_genes import ASSAYS, GENES

MAGPIE = [
    "--tasks",
    "seg",
    "idh",
    "--model",
    "magpie_unet_b",
    "--arch.set",
    "channels=[4,8]",
    "blocks=[1,1]",
    "decoder_blocks=[1]",
    "patch_size=2",
    "scales=2",
    "msda_width=8",
    "heads=2",
    "depth=1",
    "experts=4",
    "expert_hidden=8",
]
MDL_CA = [
    "--tasks",
    "idh",
    "grade",
    "--model",
    "mdl_ca",
    "--arch.set",
    'sequences=["t1"]',
    "layers=[1,1,1,1]",
    "growth=4",
    "stem_channels=8",
    "width=16",
    "node_width=8",
    "graph_heads=2",
    "attention_hidden=8",
    "dense=[16,8]",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a gene table of the cases."""
    folder = tmp_path_factory.mktemp("systems")
    columns = [f"{gene}_{assay}" for gene in GENES for assay in ASSAYS]
    lines = ["\t".join(["participant_id", *columns])]
    rng = np.random.default_rng(0)
    for number in (*range(8), *range(20, 23)):
        values = rng.integers(0, 2, len(columns)).astype(str)
        lines.append("\t".join([f"case-{number}", *values]))
    (folder / "genes.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def finetune(folder, ball_shards, write_labels, tiny_preset):
    """A function that fine-tunes a system on eight balls and returns the exit code."""
    train, labels = ball_shards(range(8)), write_labels(folder / "labels.tsv", range(8))

    def run(out: Path, *more: str) -> int:
        command = ["finetune", str(tiny_preset), "--only_folds", "0", "--data", str(train)]
        where = ["--labels", str(labels), "--out", str(out)]
        return main([*command, *where, "--arch.set", *more])

    return run


@pytest.fixture(scope="module")
def evaluate(folder, ball_shards, write_labels):
    """A function that evaluates a run on three balls and returns the exit code."""
    test, labels = ball_shards(range(20, 23)), write_labels(folder / "test.tsv", range(20, 23))

    def run(model: Path, out: Path, *more: str) -> int:
        command = ["evaluate", str(model), "--data", str(test), "--labels", str(labels)]
        return main([*command, "--out", str(out), *more])

    return run


@pytest.fixture
def case(tmp_path) -> Path:
    """A raw case of T1 and FLAIR."""
    folder = tmp_path / "case-20"
    folder.mkdir()
    grid = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij"), -1)
    head = np.linalg.norm(grid - 9.5, axis=-1) < 9
    rng = np.random.default_rng(1)
    for name in ("t1", "flair"):
        image = np.where(head, 100 + rng.normal(0, 9, head.shape), 0).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image, np.diag([3, 3, 3, 1])), folder / f"{name}.nii.gz")
    return folder


def test_magpie_from_training_to_maps(finetune, evaluate, case, tmp_path):
    assert finetune(tmp_path / "run", *MAGPIE) == 0
    model = read_config(tmp_path / "run/fold_0")["model"]
    assert model["name"] == "magpie_unet_b" and model["overrides"]["experts"] == 4
    assert evaluate(tmp_path / "run", tmp_path / "e") == 0
    metrics = json.loads((tmp_path / "e/metrics.json").read_text())
    assert set(metrics["regions"]) == {"ET", "TC", "WT"} and set(metrics["markers"]) == {"idh"}
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "run"), str(case), "--out", str(out), "--maps"]) == 0
    record = json.loads((out / "case-20.json").read_text())
    assert list(record["maps"]) == ["experts_feed_forward.0"]
    experts = nibabel.load(out / record["maps"]["experts_feed_forward.0"])
    assert experts.shape[3] == 4
    np.testing.assert_allclose(np.diag(experts.affine)[:3], 6)  # tokens of two voxels of 3 mm
    assert experts.get_fdata().max() > 0.25


def test_genes_reach_training_evaluation_and_prediction(
    finetune, evaluate, folder, case, tmp_path, capsys
):
    genes = ["--genes", str(folder / "genes.tsv")]
    assert finetune(tmp_path / "run", *MDL_CA, *genes) == 0
    assert evaluate(tmp_path / "run", tmp_path / "e", *genes) == 0
    metrics = json.loads((tmp_path / "e/metrics.json").read_text())
    assert set(metrics["markers"]) == {"idh", "grade"} and not metrics["regions"]
    predict = ["predict", str(tmp_path / "run"), str(case), "--out", str(tmp_path / "out")]
    assert main([*predict, "--maps", *genes]) == 0
    record = json.loads((tmp_path / "out/case-20.json").read_text())
    assert sum(record["markers"]["grade"]["probability"].values()) == pytest.approx(1)
    assert nibabel.load(tmp_path / "out" / record["maps"]["genes"]).shape[3] == len(GENES)
    assert main([*predict, "--overwrite"]) == 2
    assert "mdl_ca needs the cases' gene table" in capsys.readouterr().err
    assert evaluate(tmp_path / "run", tmp_path / "e2") == 2
    assert "mdl_ca needs the cases' gene table" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "mgmt_net"], "mgmt_net has no task 'grade'; it has seg, idh, 1p19q, tert"),
        (
            ["--model", "attention_unet", "--tasks", "seg"],
            "attention_unet needs t1, t1ce, t2, flair; case case-0 lacks t1ce, t2",
        ),
        (MDL_CA, "mdl_ca needs the cases' gene table: give it with --genes TABLE"),
        ([*MDL_CA, "--loss.focal_markers", "2"], "mdl_ca has the loss of entmax"),
        (
            ["--model", "attention_unet", "--tasks", "seg", "--crop.sequence_dropout", "0.3"],
            "attention_unet needs t1, t1ce, t2, flair of every case",
        ),
        (["--crop.sequence_dropout", "1.5"], "must lie between 0 and 1"),
        (["--arch.set", "experts"], "write it as name=value"),
        (["--arch.set", "experts=x"], "setting experts of gliomoe: 'x' is a str"),
        (["--arch.set", "expert=4"], "unknown setting 'expert' of gliomoe"),
    ],
)
def test_what_is_missing_is_said_first(finetune, tmp_path, capsys, more, message):
    assert finetune(tmp_path / "run", *more) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1] and said[-1].startswith("gliomoe finetune: error: ")
    assert not (tmp_path / "run").exists()


def test_a_gene_table_is_not_ignored(finetune, folder, tmp_path, capsys):
    genes = ["--genes", str(folder / "genes.tsv")]
    assert finetune(tmp_path / "run", "--tasks", "seg", *genes) == 2
    assert "gliomoe_tiny takes no genes; leave --genes out" in capsys.readouterr().err
