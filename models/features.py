"""What encoders and models return.

Shapes: B studies, N tokens of all studies packed one after the other, E experts, K experts chosen
per token, C channels, D H W voxels.
"""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Activation = Literal["softmax", "entmax15"]


@dataclass(frozen=True)
class Routing:
    """What the router of one mixture-of-experts layer decided."""

    layer: str
    """Name of the layer in the model."""
    probabilities: Tensor
    """[N, E] float32, softmax over the experts."""
    choice: Tensor
    """[N, K] int64, the chosen experts, best first."""
    logits: Tensor
    """[N, E] float32, before the softmax."""
    study: Tensor
    """[N] int64, the study each token belongs to."""
    position: Tensor
    """[N, 3] int64, index of each token along D, H, W; -1 for registers."""
    patch_size: int
    """Edge of a token in voxels; layers of one model may differ."""


@dataclass(frozen=True)
class Features:
    """What an encoder makes of a batch."""

    pooled: Tensor
    """[B, C], one vector per study."""
    tokens: Tensor
    """[N, C], patch tokens after the last block, registers excluded, packed study after study."""
    study: Tensor
    """[N] int64, the study each token belongs to, ascending."""
    position: Tensor
    """[N, 3] int64, patch index of each token along D, H, W."""
    pyramid: list[Tensor] = field(default_factory=list)
    """[B, C_i, D/2^i, H/2^i, W/2^i] for i = 0, 1, …; empty when only some tokens were encoded."""
    routing: list[Routing] = field(default_factory=list)
    """One entry per mixture-of-experts layer."""
    maps: dict[str, Tensor] = field(default_factory=dict)
    """Name → [B, n, d, h, w] attention of the encoder in 0 to 1, for reports; empty in training and
    when only some tokens were encoded."""


@dataclass(frozen=True)
class Predictions:
    """What a model with heads makes of a batch."""

    seg: Tensor | None
    """[B, R, D, H, W] logits of the overlapping regions, or None without the task `seg`."""
    markers: dict[str, Tensor]
    """Task → [B, classes] logits (one for a binary marker)."""
    features: Features
    classes: Tensor | None = None
    """[B, K, D, H, W] logits of exclusive classes, canonical label k in channel k, of systems that
    segment by softmax; `seg` says the same as regions."""
    deep: tuple[Tensor, ...] = ()
    """[B, R, D/2^i, …] region logits of coarser levels, finest first, for deep supervision in
    training; empty in evaluation."""
    activation: Activation = "softmax"
    """What makes probabilities of `markers`: `heads.activation.probabilities` takes it."""
    maps: dict[str, Tensor] = field(default_factory=dict)
    """Name → [B, n, d, h, w] attention in 0 to 1, for reports; empty in training."""
