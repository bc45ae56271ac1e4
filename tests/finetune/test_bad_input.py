"""What is wrong with cases, labels, splits or checkpoints is said before any training."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.format.dataset import seal
from gliomoe.data_shards.format.record import encode_study
from gliomoe.data_shards.format.writer import write_shards
from gliomoe.data_shards.identity.seen import Seen
from gliomoe.data_shards.nifti import write_nifti
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.study import Study
from gliomoe.finetune.cases import labelled_cases, warn_of_segmentations
from gliomoe.finetune.config import ArchConfig, FinetuneConfig
from gliomoe.finetune.evaluate import EvaluateConfig, evaluate
from gliomoe.finetune.splits import Case, make_splits, write_splits
from gliomoe.finetune.train import prepare
from gliomoe.models.checkpoint import save_checkpoint
from gliomoe.models.registry import create_model

SIDE = 12


@dataclass
class Call:
    """A call that works, and where to put what spoils it."""

    folder: Path
    config: FinetuneConfig

    def labels(self, text: str) -> dict[str, Any]:
        """A label table; blanks separate its rows."""
        path = self.folder / "bad.csv"
        path.write_text("\n".join(text.split()), "utf-8")
        return {"labels": path}

    def checkpoint(self, training: dict[str, Any], tasks: tuple[str, ...] = ()) -> Path:
        """A checkpoint that has seen case-3."""
        shards = ShardSet.open(self.config.data)
        folder = self.folder / "checkpoint"
        save_checkpoint(
            folder,
            create_model("gliomoe_tiny", tasks, patch_size=4),
            training=training,
            preprocessing=shards.info["preprocess"],
            sequences=["t1", "flair"],
            card="",
            fingerprints=Seen.of_record(shards.record(shards.position("case-3"))).to_bytes(),
        )
        return folder

    def finetuned(self, *tasks: str) -> Path:
        """A fine-tuned checkpoint that has seen case-3."""
        about = {"kind": "finetune", "window": [16, 16, 16], "thresholds": {}}
        return self.checkpoint(about, tasks)

    def splits(self, keys: str) -> dict[str, Any]:
        """Splits into two folds of cases with these names."""
        path = self.folder / "other.json"
        write_splits(path, make_splits([Case(key, key, {}) for key in keys], None, 2, 0))
        return {"splits": path}

    def hashed(self) -> dict[str, Any]:
        """The same set, as if it had been built without names."""
        data = shutil.copytree(self.config.data, self.folder / "hashed")
        info = json.loads((data / "dataset.json").read_text())
        (data / "dataset.json").write_text(json.dumps({**info, "keep_ids": False}))
        return {"data": data}


@pytest.fixture(scope="module")
def shards(ball_shards) -> Path:
    return ball_shards(range(8))


@pytest.fixture
def call(shards, write_labels, tmp_path) -> Call:
    config = FinetuneConfig(
        data=shards,
        out=tmp_path / "run",
        labels=write_labels(tmp_path / "labels.tsv", range(8)),
        shots=8,
        folds=2,
        tasks=("seg", "idh"),
        arch=ArchConfig(patch_size=4, spacing=3.0),
    )
    return Call(tmp_path, config)


def test_the_call_works(call):
    prepared = prepare(call.config)
    assert len(prepared.cases) == 8 and not call.config.out.exists()


FIVE = "case,idh case-0,wt case-2,wt case-4,wt case-6,wt case-1,"

WRONG: list[tuple[Callable[[Call], dict[str, Any]], str]] = [
    (lambda c: c.labels("case,idh ghost,wt"), "none of its cases is in the data: ghost; the data"),
    (lambda c: {"labels": c.folder}, "no such label table"),
    (
        lambda c: {"labels": c.config.data / "index.npy"},
        "not a UTF-8 text table .*; save it as CSV",
    ),
    (
        lambda c: c.labels("case,idh case-0,mutnat case-1,mutnat case-2,wt"),
        r"bad.csv: 2 cell\(s\) hold no label: idh 'mutnat' \(2 rows; nearest known: mutant\)",
    ),
    (lambda c: c.labels(FIVE + "wt"), "task idh: all 5 labels among the chosen cases are 0, so"),
    (
        lambda c: {"shots": 9, "folds": 9},
        "8 labelled subjects cannot fill 9 folds; give more cases",
    ),
    (lambda c: {"tasks": ("seg", "tert")}, "task tert: no case has a known label in .*labels.tsv"),
    (lambda c: {"labels": None}, "task idh: no case has a known label in the data"),
    (
        lambda c: c.labels("case,grade case-0,LGG case-1,HGG") | {"tasks": ("grade",)},
        "task grade: .*; LGG and HGG are what the task hgg learns: put it in --tasks instead",
    ),
    (lambda c: c.splits("abcd"), "4 of its 4 cases have no data or no labels: a, b, c, d; leave"),
    (
        lambda c: {"from_": str(c.checkpoint({}))},
        "checkpoint was trained on 1 of 8 cases: case-3; leave them out, or say --allow-leakage",
    ),
    (
        lambda c: {"from_": str(c.finetuned("idh"))},
        "checkpoint: is fine-tuned already, for idh; give --from a pretrained checkpoint",
    ),
    (lambda c: c.hashed(), "hashed keys, which no table names; build it --keep-ids"),
]


@pytest.mark.parametrize(("spoil", "message"), WRONG, ids=range(len(WRONG)))
def test_refused_before_anything_is_written(call, spoil, message):
    with pytest.raises(UsageError, match=message) as error:
        prepare(replace(call.config, **spoil(call)))
    assert "\n" not in str(error.value)
    assert not call.config.out.exists()


def test_a_fold_that_learns_one_class_is_told(call, caplog):
    prepare(replace(call.config, **call.labels(FIVE + "mut")))
    assert "all training cases with a label of idh are 0; it learns nothing" in caplog.text


@pytest.mark.parametrize(
    ("tasks", "labels", "leaky", "message"),
    [
        (None, "", False, "checkpoint: not a fine-tuned model; gliomoe finetune --from"),
        (
            ("tert",),
            "",
            False,
            "learned tert, of which no case has a label; there are labels of gr",
        ),
        (("idh",), "", False, "checkpoint was trained on 1 of 8 cases: case-3; leave them out"),
        (("idh",), "case,idh x,wt", True, "none of its cases is in the data: x"),
    ],
)
def test_evaluation_refuses(call, tasks, labels, leaky, message):
    config = EvaluateConfig(
        run=call.checkpoint({}) if tasks is None else call.finetuned(*tasks),
        data=call.config.data,
        out=call.folder / "figures",
        labels=call.labels(labels)["labels"] if labels else call.config.labels,
        allow_leakage=leaky,
    )
    with pytest.raises(UsageError, match=message):
        evaluate(config, {})
    assert not config.out.exists()


def write_case(folder: Path, seg: np.ndarray, shift: float = 0.0) -> Path:
    """A folder of one case, its labels `shift` mm beside the images."""
    rng = np.random.default_rng(0)
    images = {
        name: rng.integers(100, 900, (SIDE,) * 3).astype(np.int16) for name in ("t1", "flair")
    }
    moved = np.eye(4)
    moved[0, 3] = shift
    for name, data in images.items():
        write_nifti(folder / "cases" / "p1" / f"p1_{name}.nii.gz", data, np.eye(4))
    write_nifti(folder / "cases" / "p1" / "p1_seg.nii.gz", seg.astype(np.uint8), moved)
    return folder / "cases"


@pytest.mark.parametrize(
    ("value", "shape", "shift", "message"),
    [
        (1, (SIDE, SIDE, SIDE), 40.0, "size of t1 and flair but lies elsewhere in space"),
        (1, (6, 6, 6), 40.0, "most labels lie outside of"),
        (
            3,
            (SIDE, SIDE, SIDE),
            0.0,
            "p1_seg.nii.gz: labels 3 (8 voxels) are not of the convention",
        ),
        (3, (SIDE, SIDE, SIDE), 0.0, "brats2023 and bratsped would fit"),
    ],
)
def test_segmentations_that_do_not_fit(call, value, shape, shift, message):
    seg = np.zeros(shape)
    seg[2:4, 2:4, 2:4] = value
    data = write_case(call.folder, seg, shift)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        prepare(replace(call.config, data=data, labels=None, tasks=("seg",)))
    assert "p1" in str(error.value) and "\n" not in str(error.value)
    assert not [path for path in call.config.out.glob("*") if path.name != "shards"]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (([1, 2, 3], [1, 2, 4]), []),
        (
            ([1, 2, 4], [2, 4]),
            ["2 of 2 segmentations have a resection cavity .* number it 3: a, b"],
        ),
        (([1, 3], []), ["1 of 2 segmentations are empty: b"]),
    ],
)
def test_odd_segmentations_are_told(tmp_path, caplog, labels, told):
    studies = []
    for key, values in zip("ab", labels, strict=True):
        image = np.random.default_rng(ord(key)).normal(100, 20, (SIDE,) * 3).astype(np.float32)
        seg = np.zeros((SIDE,) * 3, np.uint8)
        seg[0, 0, : len(values)] = values
        studies.append(Study(key, key, {"t1": image}, np.eye(4), seg=seg, fingerprint=key * 32))
    written = list(write_shards(tmp_path, map(encode_study, studies), 10**9))
    seal(tmp_path, written, asdict(PreprocessConfig(spacing=1.0)))
    shards = ShardSet.open(tmp_path)
    warn_of_segmentations(shards, labelled_cases(shards, None, ["seg"]))
    assert len(caplog.messages) == len(told)
    assert all(re.search(want, got) for want, got in zip(told, caplog.messages, strict=True))
