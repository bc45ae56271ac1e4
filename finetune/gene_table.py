"""placeholder"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

ASSAYS = ("mutation", "copy_number", "expression")


def read_gene_table(path: Path, genes: Sequence[str]) -> dict[str, Tensor]:
    """Placeholder."""
    raise NotImplementedError
