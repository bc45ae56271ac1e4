"""One stage of a 3-D Swin transformer (Liu et al. 2021), from MONAI's parts."""

from torch import Tensor

from gliomoe.models.recompute import Recomputable


class SwinStage(Recomputable):
    """Patch merging, then blocks with windows and shifted windows in turn.

    Positions enter by the relative position bias of each window.
    """

    def __init__(self, width: int, depth: int, heads: int, window: int, merge: bool):
        """`merge`: the input has half the width and twice the resolution."""
        super().__init__()
        from monai.networks.nets.swin_unetr import BasicLayer, PatchMergingV2

        self.merge = PatchMergingV2(width // 2) if merge else None
        self.blocks = BasicLayer(width, depth, heads, (window,) * 3, [0.0] * depth, qkv_bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map of the stage, not normalised.

        Args:
            x: [B, C, D, H, W], or [B, C/2, 2D, 2H, 2W] where the stage merges; odd sides are
                padded there.

        Returns:
            [B, C, D, H, W].
        """
        if self.merge is not None:
            x = self.merge(x.movedim(1, -1)).movedim(-1, 1)
        return self.blocks(x)
