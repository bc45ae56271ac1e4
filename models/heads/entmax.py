"""Dense head for the sparse probabilities of entmax."""

from collections.abc import Mapping

from torch import Tensor, nn

from gliomoe.models.blocks.normalisation import BatchNorm
from gliomoe.models.heads.activation import entmax_package

NORMS = {"layer": nn.LayerNorm, "batch": BatchNorm}


class EntmaxHead(nn.Module):
    """Normalised layers of 512 and 128 with ReLU, logits (MDL-CA, eq. 16-18).

    Dropout follows the first. The logits are those of entmax with α = 1.5, which
    `heads.activation.probabilities` applies.

    The paper normalises by the batch. In volumes a batch is one or two studies, whose pooled
    vectors differ by little: statistics of two rows blow up what dropout and running means of the
    encoder change between training and evaluation, and a network that knows its training cases
    fails on them in evaluation. Layer normalisation is the default; `batch` is there to compare.
    """

    def __init__(
        self,
        width: int,
        hidden: tuple[int, int],
        classes: Mapping[str, int],
        dropout: float,
        norm: str = "layer",
    ):
        """`classes` are the logits by task; all tasks share the dense layers."""
        entmax_package()  # missing, it is better said now than at the first prediction
        super().__init__()
        first, second = hidden
        normalise = NORMS[norm]
        self.dense = nn.Sequential(
            nn.Linear(width, first),
            normalise(first),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(first, second),
            normalise(second),
            nn.ReLU(),
        )
        self.logits = nn.ModuleDict({task: nn.Linear(second, n) for task, n in classes.items()})
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Task → logits [B, classes] of [B, width]."""
        hidden = self.dense(x)
        return {task: linear(hidden) for task, linear in self.logits.items()}
