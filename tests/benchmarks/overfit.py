"""Every registered model, at its real size, learns two phantom cases by heart.

    python tests/benchmarks/overfit.py [--models PATTERN] [--size 48] [--spacing 4] [--steps 400]

A model has learned when, in evaluation, the Dice of ET, TC and WT (means of the two cases) are each
above 0.9 and every marker and the grade of both cases are right. AdamW, float32, the loss of
fine-tuning. A model that does not learn, or fails, is recorded as such and makes the exit code 1.
Writes tests/benchmarks/results/overfit.json after each model, beside those that are there.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gliomoe.data_shards.batch import StudyBatch, StudySample, collate
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.labels import to_canonical, to_regions
from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.data_shards.phantom.subject import Subject, draw_subject, render
from gliomoe.finetune.losses import GRADES, LossConfig, losses
from gliomoe.finetune.metrics.segmentation import dice
from gliomoe.launch.bench.inputs import ASSAYS
from gliomoe.launch.runs import machine
from gliomoe.models import create_model, list_models
from gliomoe.models.features import Predictions
from gliomoe.models.registry import entry, parameter_counts

RESULT = Path(__file__).parent / "results/overfit.json"
REGIONS = ("ET", "TC", "WT")
POSITIVE = ("mutant", "codeleted")
GOAL = 0.9
WARM_UP = 20
"""Steps over which the learning rate rises."""


def targets(subject: Subject) -> dict[str, float]:
    """Case labels as fine-tuning has them."""
    told = {task: float(subject.labels[task] in POSITIVE) for task in ("idh", "1p19q", "tert")}
    return {"seg": 1.0, "grade": float(subject.labels["grade"]), **told}


def unlike_subjects(config: CohortConfig) -> tuple[Subject, Subject]:
    """An oligodendroglioma, and a glioma that differs from it in IDH, 1p/19q and grade."""
    drawn = [draw_subject(config, number) for number in range(1, config.subjects + 1)]
    first = next(subject for subject in drawn if targets(subject)["1p19q"])
    for other in drawn:
        pairs = ((targets(first)[task], targets(other)[task]) for task in ("idh", "1p19q", "grade"))
        if all(a != b for a, b in pairs):
            return first, other
    raise SystemExit("no such pair in the cohort")


def two_cases(size: int, spacing: float) -> StudyBatch:
    """Crops of two phantoms about their tumours, four sequences each."""
    config = CohortConfig(subjects=100, spacing=spacing, seed=3)
    samples = []
    for subject in unlike_subjects(config):
        images = render(config, subject)
        seg = to_canonical(images.seg.voxels, config.convention)
        starts = [
            min(max(0, int(where.mean()) - size // 2), max(0, side - size))
            for where, side in zip(seg.nonzero(), seg.shape, strict=True)
        ]
        place = tuple(slice(start, start + size) for start in starts)
        volumes = [
            torch.from_numpy(image.voxels[place]).float() for image in images.series.values()
        ]
        ends = [end for side in reversed(seg[place].shape) for end in (0, size - side)]
        voxels = torch.stack([v / v[v > 0].quantile(0.99) for v in volumes])
        samples.append(
            StudySample(
                key=str(subject.number),
                voxels=torch.nn.functional.pad(voxels, ends),
                sequence=torch.arange(len(volumes)),
                spacing=torch.full((3,), spacing),
                seg=torch.nn.functional.pad(torch.from_numpy(seg[place]), ends),
                targets=targets(subject),
            )
        )
    return collate(samples)


def scores(prediction: Predictions, batch: StudyBatch) -> dict[str, float]:
    """Dice of each region, mean of the cases, and the share of right answers by task."""
    found: dict[str, float] = {}
    if prediction.seg is not None and batch.seg is not None:
        truth = to_regions(batch.seg)
        for region, name in enumerate(REGIONS):
            each = [
                float(dice(mask[region] > 0, wanted[region]))
                for mask, wanted in zip(prediction.seg, truth, strict=True)
            ]
            found[name] = round(sum(each) / len(each), 4)
    for task, logits in prediction.markers.items():
        if logits.shape[1] == 1:
            right = (logits[:, 0] > 0) == (batch.targets[task] > 0.5)
        else:
            right = logits.argmax(1) == torch.bucketize(batch.targets[task], torch.tensor(GRADES))
        found[task] = float(right.float().mean())
    return found


def learned(found: Mapping[str, float]) -> bool:
    """Whether the goal is reached."""
    return all(value > GOAL if name in REGIONS else value == 1.0 for name, value in found.items())


def overfit(name: str, batch: StudyBatch, options: argparse.Namespace) -> dict[str, Any]:
    """Train one model until it has learned the batch or the steps are used up."""
    begun = time.monotonic()
    torch.manual_seed(0)
    model = create_model(name, entry(name).tasks)
    if model.genes:
        table = torch.rand(batch.studies, len(model.genes), ASSAYS)
        batch = replace(batch, genes=table)
    weights = {task: torch.ones(3 if task == "grade" else 2) for task in model.tasks}
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.0)
    found: dict[str, float] = {}
    bar = tqdm(range(1, options.steps + 1), desc=name, unit="step", disable=None)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min(1.0, step / WARM_UP)
        parts = losses(model.train()(batch), batch, LossConfig(label_smoothing=0.0), weights)
        optimizer.zero_grad()
        parts["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        bar.set_postfix(loss=parts["total"].item(), **found)
        if step % options.every == 0 or step == options.steps:
            with torch.no_grad():
                found = scores(model.eval()(batch), batch)
            if learned(found):
                break
    bar.close()
    return {
        "learned": learned(found),
        "steps": step,
        "seconds": round(time.monotonic() - begun, 1),
        "scores": found,
        "parameters": parameter_counts(model)[0],
        "settings": {
            key: getattr(options, key) for key in ("size", "spacing", "lr", "steps", "every")
        },
    }


def main() -> int:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="*", metavar="PATTERN")
    parser.add_argument("--size", type=int, default=48, help="side of the crops, voxels")
    parser.add_argument("--spacing", type=float, default=4.0, help="mm")
    parser.add_argument("--steps", type=int, default=400, help="at most")
    parser.add_argument("--every", type=int, default=10, help="steps between looks at the goal")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    names = list_models(options.models)
    if not names or min(options.size, options.steps, options.every) < 1:
        parser.error(f"nothing to do; models: {', '.join(list_models())}")
    batch = two_cases(options.size, options.spacing)
    before = json.loads(options.out.read_text()) if options.out.is_file() else {}
    results = before.get("models", {})
    for name in names:
        try:
            results[name] = overfit(name, batch, options)
        except Exception as error:  # the others are still to be measured
            results[name] = {"learned": False, "error": f"{type(error).__name__}: {error}"}
        print(name, json.dumps(results[name]), flush=True)
        ordered = {known: results[known] for known in list_models() if known in results}
        write_json(options.out, {"models": ordered, "machine": machine()})
    return 0 if all(results[name]["learned"] for name in names) else 1


if __name__ == "__main__":
    sys.exit(main())
