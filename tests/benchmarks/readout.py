"""What do frozen tokens tell with 5, 10 and 20 labelled phantoms? Pretrained against random.

    python tests/benchmarks/readout.py FOLDER [--draws N]

FOLDER is the one of `evidence.py`: its cohorts, and the checkpoint, which are made where they are
missing. Nothing is fine-tuned. From the tokens of the last block the ridge layer of pretraining's
probe tells the share of tumour of each patch, logistic regression on the mean token, weighted by
that share, the markers: the plainest way to use an encoder, without the convolutional path, which
sees voxels and is never pretrained. Twenty draws of labelled cases, intervals over draws and cases
as in `evidence.py`. Three minutes of one core. Writes tests/benchmarks/results/readout.json, with
how well the same layer tells where in the head a patch lies.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from commands import Cost
from evidence import NAMES, RESULTS, SHOTS, pretrained, shards
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import avg_pool3d
from tqdm import tqdm

from gliomoe.data_shards.batch import collate
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.labels import REGIONS, to_regions
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.cases import LabelledCase, labelled_cases
from gliomoe.finetune.dataset import read_case
from gliomoe.finetune.metrics.crossed import auc_pseudo_values
from gliomoe.finetune.predict import TASK_NAMES
from gliomoe.launch.runs import machine
from gliomoe.launch.studies.draws import draw
from gliomoe.launch.studies.rows import measure_rows
from gliomoe.models.checkpoint import load_encoder
from gliomoe.models.model import Model
from gliomoe.models.registry import create_model
from gliomoe.pretrain.monitoring.probe_figures import painted_dice, ridge

RESULT = RESULTS / "readout.json"
FOLDS = 5
TASKS = ("seg", "idh", "1p19q", "tert")
PATCH = 4


@dataclass(frozen=True)
class Seen:
    """A labelled case as a frozen encoder sees it."""

    case: LabelledCase
    tokens: Tensor
    """[N, C] float64."""
    place: Tensor
    """[N, 3] float64, index of each patch."""
    tumour: Tensor
    """[N] float64, share of each patch that is whole tumour."""


def encode(model: Model, folder: Path, tables: Path, name: str) -> list[Seen]:
    """All cases of a cohort."""
    cohort = ShardSet.open(str(folder))
    cases = labelled_cases(cohort, tables / name / "participants.tsv", TASKS)
    whole = list(REGIONS).index("WT")
    found = []
    for case in tqdm(cases, desc=name, unit="case", disable=None):
        sample = read_case(cohort, case)
        assert sample.seg is not None
        with torch.inference_mode():
            features = model.encoder(collate([sample]))
        shares = avg_pool3d(to_regions(sample.seg).double()[None, whole], PATCH, ceil_mode=True)[0]
        place = features.position
        tumour = shares[tuple(place.T)]
        found.append(Seen(case, features.tokens.double(), place.double(), tumour))
    return found


def solve(cases: Sequence[Seen], targets: Sequence[Tensor]) -> Tensor:
    """The ridge layer [C + 1] that tells the targets [N] from the tokens."""
    columns = [
        torch.cat([seen.tokens, torch.ones_like(target)[:, None], target[:, None]], 1)
        for seen, target in zip(cases, targets, strict=True)
    ]
    return ridge(sum(joint.T @ joint for joint in columns))


def told(seen: Seen, layer: Tensor) -> Tensor:
    """What a layer says of each patch."""
    return seen.tokens @ layer[:-1] + layer[-1]


def dice(layer: Tensor, train: Sequence[Seen], test: Sequence[Seen]) -> np.ndarray:
    """Dice of the whole tumour of each test case, at the threshold best for the training cases."""
    own = torch.stack([painted_dice(told(seen, layer), seen.tumour) for seen in train])
    best = own.mean(0).argmax()
    return np.array([float(painted_dice(told(s, layer), s.tumour)[best]) for s in test])


def pooled(layer: Tensor, cases: Sequence[Seen]) -> np.ndarray:
    """Mean token of each case [S, C], weighted by what the layer says of tumour."""
    weights = [told(seen, layer).clamp(min=1e-6) for seen in cases]
    return np.stack([(w @ s.tokens / w.sum()).numpy() for s, w in zip(cases, weights, strict=True)])


def areas(layer: Tensor, train: Sequence[Seen], test: Sequence[Seen], task: str) -> np.ndarray:
    """Pseudo-values of the AUC of a marker, of each test case."""
    known = [seen for seen in train if not np.isnan(seen.case.targets[task])]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    model.fit(pooled(layer, known), [seen.case.targets[task] for seen in known])
    truth = np.array([seen.case.targets[task] for seen in test])
    return auc_pseudo_values(truth, model.predict_proba(pooled(layer, test))[:, 1])


def place_told(train: Sequence[Seen], test: Sequence[Seen]) -> float:
    """Share of the variance of a patch's place along D, H and W that a layer explains."""
    explained = []
    for axis in range(3):
        layer = solve(train, [seen.place[:, axis] for seen in train])
        wrong = torch.cat([told(seen, layer) - seen.place[:, axis] for seen in test])
        truth = torch.cat([seen.place[:, axis] for seen in test])
        explained.append(1 - float(wrong.square().mean() / truth.var(correction=0)))
    return sum(explained) / 3


def measure(model: Model, folder: Path, draws: int) -> tuple[dict[Any, Any], float]:
    """(Shots, test) → measure → [draws, cases]; how well 20 cases tell a patch's place."""
    seen = {n: encode(model, folder / "shards" / n, folder / "cohorts", n) for n in NAMES}
    labelled, *tests = NAMES
    by_key = {one.case.key: one for one in seen[labelled]}
    cases = [one.case for one in seen[labelled]]
    values: dict[Any, Any] = {}
    place = []
    for seed in tqdm(range(draws), desc="draws", disable=None):
        for shots, splits in draw(cases, SHOTS, FOLDS, seed, TASKS).items():
            train = [by_key[key] for key in splits.keys]
            layer = solve(train, [seen.tumour for seen in train])
            for test in tests:
                found = values.setdefault((shots, test[-1].upper()), {})
                found.setdefault("Dice WT", []).append(dice(layer, train, seen[test]))
                for task in TASKS[1:]:
                    of_task = found.setdefault(f"AUC {TASK_NAMES[task]}", [])
                    of_task.append(areas(layer, train, seen[test], task))
            if shots == max(SHOTS):
                place.append(place_told(train, seen[tests[0]]))
    stacked = {k: {n: np.stack(v) for n, v in found.items()} for k, found in values.items()}
    return stacked, sum(place) / len(place)


def main() -> None:
    """Measure both encoders and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=20, help="of labelled cases")
    args = parser.parse_args()
    folder, cost = args.folder.resolve(), Cost()
    checkpoint = pretrained(folder, cost)
    for name in NAMES:
        shards(folder, name, cost)
    found, place = {}, {}
    for encoder in ("pretrained", "random"):
        torch.manual_seed(0)
        model = create_model("gliomoe_tiny", (), patch_size=PATCH).eval()
        if encoder == "pretrained":
            load_encoder(model, checkpoint)
        found[encoder], place[encoder] = measure(model, folder, args.draws)
    rows = [
        {"encoder": encoder, "shots": shots, "test": test, **row}
        for encoder in found
        for (shots, test), ours in sorted(found[encoder].items())
        for row in measure_rows(ours, found["random"][shots, test] if encoder != "random" else None)
    ]
    write_json(RESULT, {"rows": rows, "place_explained": place, "provenance": machine()})
    for row in rows:
        gain = f"{row['difference']:+.3f}" if "difference" in row else ""
        print(f"{row['encoder']:<11}{row['shots']:>3} {row['test']}  {row['measure']:<11}"
              f"{row['value']:.3f}  {gain}")  # fmt: skip


if __name__ == "__main__":
    main()
