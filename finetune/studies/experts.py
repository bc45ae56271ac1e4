"""Do experts see parts of the tumour? IoU of the tokens that chose an expert with each tissue.

As in MAGPIE (Fig. 2), beside what chance gives: the IoU of as many tokens chosen at random, whose
expected overlap is the product of both sizes over the whole. A token stands for all its voxels.
Shapes: N tokens, E experts, T tissues, d h w the grid of the tokens, D H W voxels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.dataset import read_case
from gliomoe.finetune.explain import predict_window
from gliomoe.finetune.inference import InferenceConfig
from gliomoe.finetune.inputs import with_inputs
from gliomoe.finetune.metrics.intervals import bootstrap_mean
from gliomoe.finetune.metrics.paired import wilcoxon_test
from gliomoe.finetune.precision import pick_device
from gliomoe.finetune.run import FinetunedRun
from gliomoe.finetune.studies.output import Row, write_study
from gliomoe.finetune.studies.plots import distinct, panels
from gliomoe.finetune.studies.scores import RunStudyConfig, difference, ends
from gliomoe.models.features import Routing
from gliomoe.models.model import Model
from gliomoe.models.moe.router import Router

TISSUES = {"NCR": 1, "ED": 2, "ET": 3, "healthy": 0}
"""Tissue → canonical label; background voxels count nowhere."""


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig(RunStudyConfig):
    """Which model on which cases; of a run the first fold is looked at."""


@dataclass(frozen=True)
class Overlap:
    """Experts of one layer in one case."""

    iou: np.ndarray
    """[E, T] in 0 to 1; NaN for a tissue that the window does not show."""
    chance: np.ndarray
    """[E, T] IoU of as many tokens chosen at random."""
    share: np.ndarray
    """[E] part of the tissue whose tokens chose the expert; they add up to the experts a token
    chooses."""


def study_experts(config: ExpertsConfig, provenance: dict[str, Any]) -> dict[str, Any]:
    """Compare the experts of every layer with the tissues, case by case, and write the study.

    Where a case is larger than the model's window, the window about the true tumour is looked at.
    Differences are IoU minus chance, paired by case.

    Args:
        config: Model and cases.
        provenance: Versions and hardware.

    Returns:
        The content of `study.json`.

    Raises:
        UsageError: If the model has no mixture of experts, or no case has a segmentation.
    """
    run = FinetunedRun.open(config.run)
    model = run.models(pick_device(config.device))[0]
    if not any(isinstance(part, Router) for part in model.modules()):
        raise UsageError(f"{config.run}: {model.config['name']} has no mixture of experts")
    shards, cases = config.cases_of(run)
    cases = [c for c in cases if shards.entry(c.position).has_seg]
    if not cases:
        raise UsageError(f"{config.data}: no labelled case has a segmentation to compare with")
    cases = with_inputs(model, shards, cases, config.genes)
    found: dict[str, list[Overlap]] = {}
    for case in tqdm(cases, desc="experts", unit="case", disable=None):
        for layer, of_case in overlaps(model, read_case(shards, case), run.inference).items():
            found.setdefault(layer, []).append(of_case)
    rows = [row for layer, per_case in found.items() for row in _rows(layer, per_case)]
    settings = {
        "run": str(config.run),
        "checkpoint": str(run.folders[0]),
        "data": str(config.data),
        "cases": [case.key for case in cases],
        "window": list(run.inference.window),
    }
    by = ["layer", "expert"]
    return write_study(config.out, "experts", by, rows, settings, plot(rows), provenance)


@torch.inference_mode()
def overlaps(model: Model, sample: StudySample, config: InferenceConfig) -> dict[str, Overlap]:
    """Layer → how its experts overlap with the tissues of one study."""
    assert sample.seg is not None
    tissue = (sample.voxels != 0).any(0) | (sample.seg > 0)
    mask = sample.seg > 0 if sample.seg.any() else tissue
    predictions, start, size = predict_window(model, sample, mask, config)
    window = tuple(slice(first, first + side) for first, side in zip(start, size, strict=True))
    labels = torch.where(tissue, sample.seg.long(), -1)[window]
    return {
        layer.layer: overlap(chosen(layer, size), tissue_counts(labels, layer.patch_size))
        for layer in predictions.features.routing
    }


def chosen(layer: Routing, size: Sequence[int]) -> Tensor:
    """[E, d, h, w] bool, where a token chose an expert, whichever of its choices it was.

    Args:
        layer: What a router decided for one study; registers are left out.
        size: D, H, W of the window.
    """
    grid = [-(-side // layer.patch_size) for side in size]
    tokens = layer.position[:, 0] >= 0
    d, h, w = layer.position[tokens].cpu().unbind(1)
    where = torch.zeros(layer.probabilities.shape[1], *grid, dtype=torch.bool)
    for choice in layer.choice[tokens].cpu().unbind(1):
        where[choice, d, h, w] = True
    return where


def tissue_counts(labels: Tensor, patch: int) -> Tensor:
    """Voxels of each tissue in each token, and of any tissue.

    Args:
        labels: [D, H, W] canonical labels, -1 in the background.
        patch: Edge of a token.

    Returns:
        [T + 1, d, h, w] float32, the last all that is not background.
    """
    masks = [labels == label for label in TISSUES.values()]
    volumes = torch.stack([*masks, labels >= 0]).float()
    return functional.avg_pool3d(volumes, patch, ceil_mode=True, divisor_override=1)


def overlap(where: Tensor, counts: Tensor) -> Overlap:
    """IoU of experts with tissues, voxel by voxel.

    Args:
        where: [E, d, h, w] as `chosen` gives it.
        counts: [T + 1, d, h, w] as `tissue_counts` gives them.
    """
    active, voxels = where.flatten(1).double(), counts.flatten(1).double()
    shared = active @ voxels.T  # [E, T + 1]
    size, of_tissue = shared[:, -1:], voxels[:-1].sum(1)
    routed = voxels[:, active.any(0)].sum(1)  # what lies in tokens at all
    expected = size * routed[:-1] / routed[-1]

    def iou(intersection: Tensor) -> np.ndarray:
        value = intersection / (size + of_tissue - intersection)
        return torch.where(of_tissue > 0, value, torch.nan).numpy()

    return Overlap(iou(shared[:, :-1]), iou(expected), (size[:, 0] / routed[-1]).numpy())


def _rows(layer: str, per_case: Sequence[Overlap]) -> list[Row]:
    """Means over cases, of each tissue over those that show it."""
    rows = []
    iou, chance = np.stack([o.iou for o in per_case]), np.stack([o.chance for o in per_case])
    shares = np.stack([o.share for o in per_case])
    for expert in range(iou.shape[1]):
        by = {"layer": layer, "expert": expert}
        share = shares[:, expert]
        whole = ends(float(share.mean()), bootstrap_mean(share))
        rows.append({**by, "measure": "share", "cases": len(share), **whole})
        for number, tissue in enumerate(TISSUES):
            there = ~np.isnan(iou[:, expert, number])
            ours, random = iou[there, expert, number], chance[there, expert, number]
            row: Row = {**by, "measure": f"IoU {tissue}", "cases": len(ours)}
            if not len(ours):
                rows.append(row | ends(None, None) | {"reason": "no case shows it"})
                continue
            row |= ends(float(ours.mean()), bootstrap_mean(ours))
            row |= {"chance": float(random.mean()), **difference(wilcoxon_test(ours, random))}
            rows.append(row)
    return rows


def summary(content: dict[str, Any]) -> dict[str, Any]:
    """The study for a terminal: of each layer and tissue the expert furthest above chance."""
    best: dict[tuple[str, str], Row] = {}
    for row in content["rows"]:
        key = row["layer"], row["measure"]
        known = row.get("difference") is not None
        if known and (key not in best or row["difference"] > best[key]["difference"]):
            best[key] = row
    shown = [row for row in content["rows"] if any(row is one for one in best.values())]
    return {**content, "rows": shown}


def plot(rows: Sequence[Row]) -> Figure:
    """A table of experts and tissues for each layer: IoU in figures, above chance in colour."""
    layers = distinct(rows, "layer")
    measures = [f"IoU {tissue}" for tissue in TISSUES]
    known: Mapping[tuple[Any, ...], Row] = {
        (row["layer"], row["expert"], row["measure"]): row
        for row in rows
        if row["value"] is not None
    }
    experts = distinct(rows, "expert")
    gains = [row["difference"] for row in known.values() if "difference" in row]
    most = max(map(abs, gains), default=0) or 1.0
    with panels(layers, height=0.6 + 0.22 * len(experts), width=2.2) as (figure, axes):
        for axis, layer in zip(axes, layers, strict=True):
            cells = [[known.get((layer, e, m)) for m in measures] for e in experts]
            above = [[np.nan if c is None else c["difference"] for c in line] for line in cells]
            image = axis.imshow(above, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
            for y, line in enumerate(cells):
                for x, cell in enumerate(line):
                    if cell is not None:
                        dark = abs(cell["difference"]) > 0.6 * most
                        axis.text(x, y, f"{cell['value']:.2f}", ha="center", va="center",
                                  fontsize=7, color="white" if dark else "black")  # fmt: skip
            axis.set_xticks(range(len(measures)), list(TISSUES))
            axis.set_yticks(range(len(experts)), [str(e) for e in experts])
            axis.grid(False)
            axis.tick_params(length=0)
        axes[0].set_ylabel("expert")
        figure.colorbar(image, ax=axes, label="IoU above chance (in figures: IoU)", shrink=0.8)
    return figure
