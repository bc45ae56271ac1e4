"""Prediction of one study: sliding window, flips, ensemble of models, uncertainty.

Of a study larger than a window only the box of its tissue is covered, and windows without tissue
are not computed; what is left out is background. Markers are averaged over windows, each weighted
by the tumour found in it, as training looks at crops with tumour only.
Shapes: M models, V volumes, R regions, D H W voxels, W windows in one call.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import torch
from torch import Tensor, nn

from gliomoe.data_shards.batch import StudyBatch, StudySample
from gliomoe.data_shards.labels import REGIONS
from gliomoe.data_shards.order import seed_for
from gliomoe.finetune.precision import Precision, autocast
from gliomoe.finetune.specks import without_specks
from gliomoe.models.features import Activation
from gliomoe.models.heads.activation import probabilities
from gliomoe.models.uncertainty import mc_dropout


@dataclass(frozen=True)
class InferenceConfig:
    """How a study is covered by windows."""

    window: tuple[int, int, int] = (128, 128, 128)
    """D, H, W in voxels; a study that is no larger is computed whole."""
    overlap: float = 0.5
    """Part of a window that its neighbour covers again; the blend is Gaussian."""
    batch: int = 2
    """Windows computed at once."""
    precision: Precision = "auto"
    draws: int = 0
    """Monte Carlo dropout: so many predictions of each model, dropout switched on, are averaged;
    0 predicts once without."""
    flips: bool = False
    """Test-time augmentation: predict the study in all eight orientations that flips along D, H
    and W give, and average the probabilities; eight times the work."""
    smallest: Mapping[str, float] = field(default_factory=dict)
    """Region → ml; a prediction of it that is no larger is left out as noise."""


@dataclass(frozen=True)
class StudyPrediction:
    """What an ensemble says about one study, on the study's grid, on the CPU."""

    regions: Tensor | None
    """[R, D, H, W] float32, probability of each region, below 0.5 where the region is left out as
    noise; None without the task `seg`."""
    uncertainty: Tensor | None
    """[D, H, W] float32 in bits: entropy of the mean probability, averaged over regions."""
    markers: dict[str, Tensor]
    """Task → probabilities: [1] of mutant or codeleted, [3] of WHO grade 2, 3, 4."""
    left_out: Mapping[str, float] = field(default_factory=dict)
    """Region → ml that was predicted of it and is left out as noise."""


def predict_study(
    models: Sequence[nn.Module], sample: StudySample, config: InferenceConfig
) -> StudyPrediction:
    """Predict one study with one model or the mean of several.

    Args:
        models: `gliomoe.models` models with the same tasks, on one device. They are put into
            evaluation mode.
        sample: The whole study; `seg` and `targets` are not looked at.
        config: Windows and precision.

    Raises:
        ValueError: If no voxel of the study shows tissue.
        ModelError: If dropout shall draw and a model has none.
    """
    if not sample.voxels.any():
        raise ValueError(f"study {sample.key}: no voxel differs from the background")
    total: Tensor | None = None
    markers: list[dict[str, Tensor]] = []
    for seg, told in _predictions(models, sample, config):
        markers.append(told)
        if seg is not None:
            total = seg if total is None else total + seg
    means = {task: torch.stack([m[task] for m in markers]).mean(0) for task in markers[0]}
    if total is None:
        return StudyPrediction(None, None, means)
    mean = total / len(markers)
    regions, left_out = without_specks(mean, sample.spacing, config.smallest)
    return StudyPrediction(regions, binary_entropy(mean).mean(0), means, left_out)


def _predictions(
    models: Sequence[nn.Module], sample: StudySample, config: InferenceConfig
) -> Iterator[tuple[Tensor | None, dict[str, Tensor]]]:
    """What each model says, once or as often as dropout draws; the same draws for a study."""
    for model in models:
        model.eval()
        if not config.draws:
            yield from _orientations(model, sample, config)
            continue
        with torch.random.fork_rng(), mc_dropout(model):
            torch.manual_seed(seed_for(0, "dropout", sample.key))
            for _ in range(config.draws):
                yield from _orientations(model, sample, config)


def _orientations(
    model: nn.Module, sample: StudySample, config: InferenceConfig
) -> Iterator[tuple[Tensor | None, dict[str, Tensor]]]:
    """What a model says of the study as it is and, with `flips`, of its mirror images."""
    for turned in product((False, True), repeat=3) if config.flips else [(False,) * 3]:
        axes = [axis for axis, flipped in zip((1, 2, 3), turned, strict=True) if flipped]
        mirrored = replace(sample, voxels=sample.voxels.flip(axes))
        seg, told = _predict_one(model, mirrored, config)
        yield (None if seg is None else seg.flip(axes)), told


def binary_entropy(probability: Tensor) -> Tensor:
    """Entropy of a yes-or-no outcome in bits, 0 to 1."""
    p = probability.clamp(1e-7, 1 - 1e-7)
    return -(p * p.log2() + (1 - p) * (1 - p).log2())


def mean_logits(
    model: nn.Module, sample: StudySample, config: InferenceConfig
) -> dict[str, Tensor]:
    """Marker task → logits [classes], averaged over windows by the tumour in them, on the CPU.

    Args:
        model: In evaluation mode.
        sample: The study.
        config: Windows.
    """
    windows, _ = _cover(model, sample, config)
    return {task: logits.cpu() for task, logits in windows.logits().items()}


def _predict_one(
    model: nn.Module, sample: StudySample, config: InferenceConfig
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Region probabilities and marker probabilities of one model, on the CPU."""
    windows, regions = _cover(model, sample, config)
    return (regions if windows.segments else None), windows.markers()


@torch.inference_mode()
def _cover(
    model: nn.Module, sample: StudySample, config: InferenceConfig
) -> tuple["_Windows", Tensor]:
    """What a model said of the windows of a study, and their blend [R, D, H, W] on the CPU."""
    device = next(model.parameters()).device
    windows = _Windows(model, sample, config.precision)
    box = tissue_box(sample.voxels, config.window)
    voxels = sample.voxels[:, *box][None].to(device)
    if all(side <= most for side, most in zip(voxels.shape[2:], config.window, strict=True)):
        dense = windows(voxels)
    else:
        # Imported here: MONAI takes seconds to import, and a study of one window needs none of it.
        from monai.inferers import sliding_window_inference

        blended = sliding_window_inference(
            voxels,
            roi_size=config.window,
            sw_batch_size=config.batch,
            predictor=windows,
            overlap=config.overlap,
            mode="gaussian",
        )
        assert isinstance(blended, Tensor)  # as `windows` returns one
        dense = blended
    regions = torch.zeros(len(REGIONS), *sample.voxels.shape[1:])
    regions[:, *box] = dense[0].float().cpu()
    return windows, regions


def tissue_box(voxels: Tensor, window: Sequence[int]) -> tuple[slice, slice, slice]:
    """What of a study windows must cover: the tissue, and at least a window around it.

    Args:
        voxels: [V, D, H, W], with tissue somewhere.
        window: D, H, W; an axis that is no longer is kept whole.

    Returns:
        A part of each axis.
    """
    tissue = (voxels != 0).any(0)
    parts = []
    for axis, most in enumerate(window):
        whole = tissue.shape[axis]
        others = [other for other in range(3) if other != axis]
        places = tissue.amax(others).nonzero()
        first, last = int(places[0]), int(places[-1])
        length = min(max(last + 1 - first, most), whole)
        start = min(max((first + last + 1 - length) // 2, 0), whole - length)
        parts.append(slice(start, start + length))
    d, h, w = parts
    return d, h, w


class _Windows:
    """Runs a model on windows, keeping the marker logits that have no place in a dense map."""

    def __init__(self, model: nn.Module, sample: StudySample, precision: Precision) -> None:
        self.model, self.sample, self.precision = model, sample, precision
        self.segments = False
        self._activation: Activation = "softmax"
        self._logits: dict[str, list[Tensor]] = {}
        self._weights: list[Tensor] = []

    def __call__(self, windows: Tensor) -> Tensor:
        """Region probabilities of windows.

        Args:
            windows: [W, V, D, H, W'], the volumes of the study as channels.

        Returns:
            [W, R, D, H, W'] float32; zeros for windows without tissue and without a seg head.
        """
        out = windows.new_zeros(len(windows), len(REGIONS), *windows.shape[2:])
        tissue = windows.flatten(1).any(1)
        if not tissue.any():
            return out
        batch = windows_of(self.sample, windows[tissue])
        with autocast(self.precision, windows.device):
            predictions = self.model(batch)
        weight = windows.new_ones(len(batch.spacing))
        if predictions.seg is not None:
            self.segments = True
            out[tissue] = predictions.seg.float().sigmoid()
            weight = out[tissue, -1].flatten(1).sum(1) + 1e-6
        self._weights.append(weight)
        self._activation = predictions.activation
        for task, logits in predictions.markers.items():
            self._logits.setdefault(task, []).append(logits.float())
        return out

    def logits(self) -> dict[str, Tensor]:
        """Task → logits [classes], over all windows so far."""
        share = torch.cat(self._weights)
        share = share / share.sum()
        return {task: share @ torch.cat(logits) for task, logits in self._logits.items()}

    def markers(self) -> dict[str, Tensor]:
        """Task → probabilities, over all windows so far."""
        return {
            task: probabilities(mean[None], self._activation)[0].cpu()
            for task, mean in self.logits().items()
        }


def windows_of(sample: StudySample, windows: Tensor) -> StudyBatch:
    """Windows of one study as the studies of a batch.

    Args:
        sample: The study.
        windows: [W, V, D, H, W'], the volumes of the study as channels.
    """
    count, volumes = windows.shape[:2]
    studies = torch.arange(count, device=windows.device)
    genes = sample.genes
    return StudyBatch(
        voxels=windows.reshape(count * volumes, 1, *windows.shape[2:]),
        sequence=sample.sequence.to(windows.device).repeat(count),
        study=studies.repeat_interleave(volumes),
        spacing=sample.spacing.to(windows.device).expand(count, 3),
        keys=(sample.key,) * count,
        genes=None if genes is None else genes.to(windows.device).expand(count, -1, -1),
    )
