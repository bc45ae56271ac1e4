"""What a model needs and what it cannot do, checked before any work: sequences, genes, options."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.label_table import case_name
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.cases import LabelledCase
from gliomoe.finetune.config import FinetuneConfig
from gliomoe.finetune.gene_table import ASSAYS, read_gene_table
from gliomoe.models.heads.entmax import EntmaxHead
from gliomoe.models.model import Model


def check_options(model: Model, config: FinetuneConfig) -> None:
    """Refuse training options that the model has no part for.

    Raises:
        UsageError: If sequences shall drop out that the model needs, or a focal loss shall replace
            that of entmax.
    """
    name = str(model.config["name"])
    if config.crop.sequence_dropout and model.encoder.sequences:
        raise UsageError(
            f"--crop.sequence_dropout {config.crop.sequence_dropout}: {name} needs "
            f"{', '.join(model.encoder.sequences)} of every case; leave it out, or take a gliomoe "
            "or magpie model"
        )
    if config.loss.focal_markers and any(isinstance(m, EntmaxHead) for m in model.modules()):
        raise UsageError(
            f"--loss.focal_markers {config.loss.focal_markers}: {name} has the loss of entmax, "
            "which has no focal form; leave it out"
        )


def with_inputs(
    model: Model, shards: ShardSet, cases: Sequence[LabelledCase], genes: Path | None
) -> list[LabelledCase]:
    """The cases with all that the model takes, genes where it asks for them.

    Args:
        model: For its sequences and genes.
        shards: The studies of the cases.
        cases: Labelled cases.
        genes: Gene table, or None.

    Raises:
        UsageError: If a case lacks a sequence, or the table is missing, not asked for or bad.
    """
    name = str(model.config["name"])
    for case in cases:
        missing = missing_sequences(model, shards.entry(case.position).sequences)
        if missing:
            raise UsageError(
                f"{name} needs {', '.join(model.encoder.sequences)}; case {case.key} lacks "
                f"{', '.join(missing)}: leave it out, or take a gliomoe or magpie model"
            )
    table = gene_tables(model, genes)
    if not model.genes:
        return list(cases)
    return [replace(case, genes=genes_of(case.subject, model, table)) for case in cases]


def missing_sequences(model: Model, present: Sequence[str]) -> list[str]:
    """Sequences that the model needs and a study does not have."""
    return [name for name in model.encoder.sequences if name not in present]


def gene_tables(model: Model, genes: Path | None) -> Mapping[str, Tensor]:
    """Case name → [G, A] of a gene table, in the order of the model's genes.

    Raises:
        UsageError: If the model asks for a table and there is none, or the reverse.
    """
    name = str(model.config["name"])
    if model.genes and genes is None:
        raise UsageError(f"{name} needs the cases' gene table: give it with --genes TABLE")
    if genes is None:
        return {}
    if not model.genes:
        raise UsageError(f"{genes}: {name} takes no genes; leave --genes out")
    table = read_gene_table(genes, model.genes)
    return {case_name(case): values for case, values in table.items()}


def genes_of(subject: str, model: Model, table: Mapping[str, Tensor]) -> Tensor:
    """The gene table [G, A] of a subject, all NaN for one that has no row."""
    unknown = torch.full((len(model.genes), len(ASSAYS)), float("nan"))
    return table.get(case_name(subject), unknown)
