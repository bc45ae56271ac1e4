"""Gene tables: what is known of the genes of each subject, for models that read genes.

A row is a subject, a column an assay of a gene: `IDH1_mutation` (0 or 1), `IDH1_copy_number`
(-2 to 2), `IDH1_expression` (z-score), as `gliomoe phantom` writes phenotype/genes.tsv. Empty or
`n/a` is unknown. Columns of other genes are passed over.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.label_table import is_case_column
from gliomoe.data_shards.label_values import UNKNOWN
from gliomoe.data_shards.table import plain, read_rows

ASSAYS = ("mutation", "copy_number", "expression")
"""In the order of the last axis of the tensors."""


def read_gene_table(path: Path, genes: Sequence[str]) -> dict[str, Tensor]:
    """The genes that a model asks for.

    Args:
        path: `.tsv` or `.csv`, UTF-8, with a header line.
        genes: `Model.genes`.

    Returns:
        Subject as the table spells it → [G, 3] float32 in the order of `genes`, NaN where unknown.

    Raises:
        UsageError: If the file is no such table, a gene or an assay has no column or two, a subject
            has two rows, or a value is neither a number nor said to be unknown.
    """
    header, rows = read_rows(path, "gene table")
    names = [name.strip() for name in header]
    id_column = next((i for i, name in enumerate(names) if is_case_column(name)), None)
    if id_column is None:
        raise UsageError(
            f"{path}: no column names the subjects; call one participant_id, subject or case"
        )
    wanted = [f"{gene}_{assay}" for gene in genes for assay in ASSAYS]
    columns = _columns(path, names, wanted)
    table: dict[str, Tensor] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        subject = row[id_column].strip()
        if not subject:
            raise UsageError(f"{path}, line {line}: no subject in column {names[id_column]}")
        if subject in table:
            raise UsageError(
                f"{path}, line {line}: {subject} is in line {lines[subject]} already; keep one"
            )
        where = f"{path}, line {line} ({subject})"
        values = [_value(row[columns[name]], f"{where}, {name}") for name in wanted]
        table[subject] = torch.tensor(values).view(len(genes), len(ASSAYS))
        lines[subject] = line
    return table


def _columns(path: Path, names: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    """Position of each wanted column."""
    if missing := [name for name in wanted if name not in names]:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise UsageError(
            f"{path}: {len(missing)} of {len(wanted)} columns that the model reads are missing: "
            f"{shown}; add them, n/a where unknown"
        )
    if twice := [name for name in wanted if names.count(name) > 1]:
        raise UsageError(f"{path}: two columns are called {twice[0]}; keep one")
    return {name: names.index(name) for name in wanted}


def _value(cell: str, where: str) -> float:
    """One cell, NaN where unknown."""
    if plain(cell) in UNKNOWN and not any(character.isdigit() for character in cell):
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise UsageError(f"{where}: {cell.strip()!r} is not a number; write n/a where unknown")
    return value
