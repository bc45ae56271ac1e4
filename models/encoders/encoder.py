"""What every encoder offers, as a type."""

from typing import Any

from torch import Tensor, nn

from gliomoe.models.features import Features
from gliomoe.models.tissue import Batch


class Encoder(nn.Module):
    """Contract of the encoders of the registry."""

    config: Any
    """Dataclass of the settings in effect."""
    patch_size: int
    """Edge of a token's patch in voxels."""
    stride: int
    """The encoder pads sides to multiples of this."""
    width: int
    """Channels of tokens and of `pooled`."""
    channels: tuple[int, ...]
    """Channels of the pyramid, from full resolution to the coarsest level."""
    sequences: tuple[str, ...] = ()
    """Sequences that every study must have; none: any number of any."""
    dense_only: tuple[str, ...] = ()
    """Children that run only with `keep=None`; pretraining leaves them as they are."""

    stem_names: tuple[str, ...] = ()
    """Children and parameters that come before the first block."""
    trunk_names: tuple[tuple[str, ...], ...]
    """Children whose own children are the blocks, from input to output; those named together run
    side by side, so that their first children are equally deep, and so on."""

    @property
    def depth(self) -> int:
        """Number of tensors that `layers` gives."""
        return 1

    def layers(self, batch: Batch, keep: Tensor) -> tuple[Features, list[Tensor]]:
        """Features of the positions `keep`, and the tokens [N, C] after each block.

        Encoders that are not made of blocks on tokens give those of their end alone.
        """
        features = self(batch, keep)
        return features, [features.tokens]

    def __call__(self, batch: Batch, keep: Tensor | None = None) -> Features:
        """Features of a batch, of all tissue or of the positions `keep` [B, Gd, Gh, Gw]."""
        return super().__call__(batch, keep)
