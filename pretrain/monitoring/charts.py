"""Names of the curves, and how TensorBoard lays the main ones out.

Every curve is called `group/name`; the groups are `train` (loss and its parts), `probe`, `experts`,
`sequences`, `optim`, `data`, `speed` and `memory`.
"""

import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.models.moe.statistics import expert_use

_PAGE = resource.getpagesize()
_GB = 1e9

LAYOUT = {
    "Is it learning?": {
        "reconstruction": ["Multiline", ["train/reconstruction"]],
        "contrast": ["Multiline", ["train/contrast$"]],
        "contrast: how often the other view is found": ["Multiline", ["train/contrast_accuracy"]],
        "loss": ["Multiline", ["train/loss"]],
    },
    "Are its features of use?": {
        "whole tumour, Dice": ["Multiline", ["probe/tumour_dice"]],
        "whole tumour, AUC of patches": ["Multiline", ["probe/tumour_auc"]],
        "markers, AUC": ["Multiline", ["probe/(?!tumour).*_auc"]],
    },
    "Are all experts used?": {
        "entropy of their use, 1 is even": ["Multiline", ["experts/entropy/.*"]],
        "smallest share of the choices": ["Multiline", ["experts/min/.*"]],
        "weights of the main sequences": ["Multiline", ["sequences/stem/(t1|t1ce|t2|flair)$"]],
    },
    "Is it fast?": {
        "studies a second": ["Multiline", ["speed/studies_per_s"]],
        "seconds of a step": ["Multiline", ["speed/seconds/.*"]],
        "waiting for data, percent": ["Multiline", ["data/wait_percent"]],
    },
}
"""Charts of TensorBoard's page "Custom scalars": title → kind and patterns of names."""


def expert_scalars(use: Sequence[Sequence[float]]) -> dict[str, float]:
    """Curves of the experts' use: how even it is, its least and greatest share, layer by layer.

    Args:
        use: Each expert's share of the choices, layer by layer. One curve an expert would be
            hundreds; the picture `experts/use` shows them all.
    """
    scalars = {}
    counts = {f"layer_{layer}": torch.tensor(shares) for layer, shares in enumerate(use)}
    for layer in expert_use(counts):
        scalars[f"experts/entropy/{layer.layer}"] = layer.entropy
        scalars[f"experts/min/{layer.layer}"] = min(layer.share)
        scalars[f"experts/max/{layer.layer}"] = max(layer.share)
    return scalars


def sequence_scalars(encoder: nn.Module) -> dict[str, float]:
    """Weight of each sequence, as if a study had them all, for each place where they are fused."""
    scalars = {}
    for name, weights in encoder.named_parameters():
        if name.endswith("fusion.by_sequence") and weights.requires_grad:
            place = name.removesuffix(".fusion.by_sequence").replace(".", "_")
            for sequence, share in zip(SEQUENCES, weights.softmax(0).tolist(), strict=True):
                scalars[f"sequences/{place}/{sequence}"] = share
    return scalars


def memory_scalars(device: torch.device) -> dict[str, float]:
    """Memory of this process now, and the most of its GPU so far, GB."""
    resident = int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE
    scalars = {"memory/rss_gb": resident / _GB}
    if device.type == "cuda":
        scalars["memory/gpu_peak_gb"] = torch.cuda.max_memory_allocated(device) / _GB
    return scalars


def timing_scalars(
    seconds: Mapping[str, float], steps: int, studies: int, wait: float
) -> dict[str, float]:
    """Curves of speed.

    Args:
        seconds: Of `steps` steps, `step` in all and its parts by name.
        steps: How many steps.
        studies: Studies of these steps.
        wait: Share of the time spent waiting for data, percent.
    """
    parts = {f"speed/seconds/{name}": value / steps for name, value in seconds.items()}
    return {
        "speed/studies_per_s": studies / seconds["step"],
        "data/wait_percent": wait,
        **parts,
    }
