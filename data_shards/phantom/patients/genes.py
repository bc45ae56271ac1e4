"""A gene table: mutations, copy number and expression of some 65 glioma genes for each subject.

Every gene has all three, so that a row is also [genes, 3] features of the nodes of a gene graph,
the input of the genomic branch of MDL-CA (Sarwar et al.); `GENES[...].modules` and arms can
serve as its edges. Genes depend on the tumour through type, grade and TERT, on its picture through
necrosis (hypoxia) and oedema (mesenchymal programme): chosen, so that genes and images share what
the markers do not explain.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from gliomoe.data_shards.phantom.patients.gene_table import (
    AMPLIFIED,
    ARM_GAIN,
    ARM_LOSS,
    CODELETED,
    DELETED,
    GENES,
    MODULES,
)
from gliomoe.data_shards.phantom.patients.markers import GLIOMA_TYPES, Glioma, draw_glioma

ASSAYS = ("mutation", "copy_number", "expression")
GENE_COLUMNS: tuple[str, ...] = tuple(f"{gene}_{assay}" for assay in ASSAYS for gene in GENES)
"""Columns of the table, in order."""

_TEXT = {
    "mutation": "Mutated (1) or not (0)",
    "copy_number": "Copy number: -2 both copies lost, -1 loss, 0 normal, 1 gain, 2 amplified",
    "expression": "Expression, z-score over all gliomas",
}
GENE_DESCRIPTIONS: dict[str, dict[str, str]] = {
    column: {"Description": f"{column.partition('_')[0]}: {_TEXT[column.partition('_')[2]]}"}
    for column in GENE_COLUMNS
}
"""For the BIDS side file of the table."""
GENE_DESCRIPTIONS["TERT_mutation"] = {"Description": "TERT: promoter mutated (1) or not (0)"}

_PLACE = {gene: place for place, gene in enumerate(GENES)}
_TYPES = tuple(GLIOMA_TYPES)
_FALSE_COPIES = 0.03
"""Share of copy numbers that are called a step too low or high."""
_RARE = (0.03, 0.03, 0.03)
"""Probability that an arm is gained or lost where the table says nothing."""
_NOISE = 1.0
"""Standard deviation of expression that no module explains."""
_STANDARDS = 3000
"""Tumours that the z-score is taken over."""

_MODULE_MEANS: dict[tuple[str, int], tuple[float, float, float, float]] = {
    ("glioblastoma", 4): (0.7, 0.4, 0.5, -0.4),
    ("astrocytoma", 2): (-1.1, -0.6, -0.5, 0.5),
    ("astrocytoma", 3): (-0.2, -0.5, -0.4, 0.4),
    ("astrocytoma", 4): (0.6, 0.2, -0.2, 0.3),
    ("oligodendroglioma", 2): (-0.9, -0.6, -0.8, 0.7),
    ("oligodendroglioma", 3): (-0.1, -0.4, -0.6, 0.6),
}
"""Type and grade → mean of each of `MODULES`; within, their standard deviation is 1."""


def draw_genes(
    glioma: Glioma, rng: np.random.Generator, missing: float = 0.06
) -> dict[str, int | float | None]:
    """The row of one subject.

    Args:
        glioma: Its tumour.
        rng: Source of every draw.
        missing: Share of values that are missing: half of them one by one, half because a whole
            assay was not done.

    Returns:
        `GENE_COLUMNS` → 0 or 1, -2 to 2, a z-score, or None where missing.

    Raises:
        ValueError: If `missing` is not a share.
    """
    if not 0 <= missing <= 1:
        raise ValueError(f"missing {missing}: choose 0 to 1")
    row: dict[str, int | float | None] = {}
    tables = _draw([glioma], rng)
    mean, sd = _standard()
    tables["expression"] = (tables["expression"] - mean) / sd
    alone = 1 - np.sqrt(1 - missing)  # two such chances leave 1 - missing
    for assay in ASSAYS:
        values = tables[assay][0]
        lost = (rng.random() < alone) | (rng.random(len(GENES)) < alone)
        for gene, value, gone in zip(GENES, values, lost, strict=True):
            shown = round(float(value), 3) if assay == "expression" else int(value)
            row[f"{gene}_{assay}"] = None if gone else shown
    return row


@cache
def _standard() -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the expression of each gene over all gliomas."""
    rng = np.random.default_rng(0)
    shares = [kind.share for kind in GLIOMA_TYPES.values()]
    types = rng.choice(_TYPES, _STANDARDS, p=shares)
    raw = _draw([draw_glioma(str(who_type), rng)[0] for who_type in types], rng)["expression"]
    return raw.mean(0), raw.std(0)


def _draw(gliomas: Sequence[Glioma], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Assay → [N, genes], nothing missing, expression not yet a z-score."""
    kind = np.array([_TYPES.index(glioma.who_type) for glioma in gliomas])
    grade = np.array([glioma.grade for glioma in gliomas])
    tert = np.array([glioma.tert == "mutant" for glioma in gliomas])
    copies = _copy_number(kind, grade, rng)
    mutated = _mutations(kind, tert, copies, rng)
    expression = _expression(gliomas, mutated, copies, rng)
    off = np.where(rng.random(copies.shape) < 0.5, -1, 1)
    wrong = rng.random(copies.shape) < _FALSE_COPIES
    called = np.clip(copies + off * wrong, -2, 2)
    return {"mutation": mutated, "copy_number": called, "expression": expression}


def _copy_number(kind: np.ndarray, grade: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[N, genes] -2 to 2: arms first, then focal events over them."""
    arms = _arms(kind, grade, rng)
    copies = np.stack([arms[gene.arm] for gene in GENES.values()], axis=1)
    grade_4 = (kind == 1) & (grade == 4)
    lower = (kind == 1) & (grade < 4)
    for event, (genes, chances) in DELETED.items():
        chance = np.take(chances, kind)
        if event == "9p21":  # in IDH-mutant astrocytoma it makes grade 4
            chance = np.where(grade_4, 0.45, chance)
        _put(copies, genes, rng.random(len(kind)) < chance, -2)
    no_p16 = copies[:, _PLACE["CDKN2A"]] == -2
    for event, (genes, chances) in AMPLIFIED.items():
        chance = np.take(chances, kind) * np.where(lower, 0.4, 1)
        if event == "CDK4":  # one break of the cell cycle is enough
            chance = np.where(no_p16, 0.4, 1.7) * chance
        if event == "MDM2":  # neighbours on 12q
            chance = np.where(copies[:, _PLACE["CDK4"]] == 2, 0.35, 0.5 * chance)
        if event == "EGFR":
            chance = np.where(no_p16, 1.2, 0.72) * chance
        _put(copies, genes, rng.random(len(kind)) < chance, 2)
    return copies


def _arms(kind: np.ndarray, grade: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Chromosome arm → [N] -1, 0 or 1."""
    glioblastoma, codeleted = kind == 0, kind == 2
    # Chromosomes 7 and 10 go together in glioblastoma, with grade in astrocytoma.
    pair = (rng.random(len(kind)) < 0.7) & glioblastoma
    other = np.select([glioblastoma, kind == 1], [0.35, 0.1 * (grade - 1)], 0.08)
    seven, ten = (pair | (rng.random(len(kind)) < other) for _ in range(2))
    arms = {"7p": seven.astype(int), "10p": -ten.astype(int)}
    arms |= {"7q": arms["7p"], "10q": arms["10p"]}
    for arm in dict.fromkeys(gene.arm for gene in GENES.values()):
        if arm in arms:
            continue
        gain = rng.random(len(kind)) < np.take(ARM_GAIN.get(arm, _RARE), kind)
        loss = rng.random(len(kind)) < np.take(ARM_LOSS.get(arm, _RARE), kind)
        if arm in CODELETED:
            gain, loss = gain & ~codeleted, loss | codeleted
        arms[arm] = np.where(loss, -1, np.where(gain, 1, 0))
    return arms


def _put(copies: np.ndarray, genes: tuple[str, ...], where: np.ndarray, value: int) -> None:
    """Write a focal event into the copy numbers of its genes."""
    for gene in genes:
        copies[where, _PLACE[gene]] = value


def _mutations(
    kind: np.ndarray, tert: np.ndarray, copies: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """[N, genes] 0 or 1."""
    chances = np.array([gene.mutated for gene in GENES.values()])
    mutated = rng.random((len(kind), len(GENES))) < chances[:, kind].T

    def put(gene: str, chance: np.ndarray | float) -> np.ndarray:
        mutated[:, _PLACE[gene]] = rng.random(len(kind)) < chance
        return mutated[:, _PLACE[gene]]

    glioblastoma, astrocytoma = kind == 0, kind == 1
    second = rng.random(len(kind)) < np.where(astrocytoma, 0.04, 0.1)
    mutated[:, _PLACE["IDH1"]] = ~glioblastoma & ~second
    mutated[:, _PLACE["IDH2"]] = ~glioblastoma & second
    mutated[:, _PLACE["TERT"]] = tert
    # MDM2 or MDM4 switch p53 off without a mutation.
    spared = (copies[:, [_PLACE["MDM2"], _PLACE["MDM4"]]] == 2).any(1)
    p53 = put(
        "TP53", np.take(GENES["TP53"].mutated, kind) * np.where(spared & glioblastoma, 0.2, 1)
    )
    # Telomeres are kept long by TERT or by loss of ATRX, hardly ever by both.
    put(
        "ATRX",
        np.select(
            [glioblastoma, astrocytoma],
            [np.where(tert, 0.02, 0.22), np.where(tert, 0.25, np.where(p53, 0.98, 0.5))],
            0.02,
        ),
    )
    cic = put("CIC", np.take(GENES["CIC"].mutated, kind))
    put("FUBP1", np.take(GENES["FUBP1"].mutated, kind) * np.where(cic, 1.5, 0.25))
    amplified = copies[:, _PLACE["EGFR"]] == 2
    put("EGFR", np.take(GENES["EGFR"].mutated, kind) * np.where(amplified, 1.8, 0.4))
    return mutated.astype(int)


def _expression(
    gliomas: Sequence[Glioma], mutated: np.ndarray, copies: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """[N, genes]: dosage, modules, what a mutation silences, noise."""
    size = len(gliomas)
    ring = np.array([glioma.enhancement == "ring" for glioma in gliomas])
    oedema = np.array([glioma.oedema_mm for glioma in gliomas])
    factor = dict(zip(MODULES, rng.standard_normal((len(MODULES), size)), strict=True))
    factor["proneural"] = 0.8 * factor["proneural"] - 0.6 * factor["mesenchymal"]
    means = np.array([_MODULE_MEANS[glioma.who_type, glioma.grade] for glioma in gliomas])
    for module, mean in zip(MODULES, means.T, strict=True):
        factor[module] = factor[module] + mean
    factor["hypoxia"] += np.where(ring, 0.5, -0.3)
    factor["mesenchymal"] += 0.03 * (oedema - 10) + 0.7 * mutated[:, _PLACE["NF1"]]
    out = _NOISE * rng.standard_normal((size, len(GENES)))
    for place, gene in enumerate(GENES.values()):
        out[:, place] += gene.dosage * copies[:, place]
        for module, weight in gene.modules.items():
            out[:, place] += weight * factor[module]
    silenced = [_PLACE[name] for name in ("ATRX", "NF1", "CIC", "FUBP1", "PTEN", "RB1")]
    out[:, silenced] -= 0.8 * mutated[:, silenced]
    out[:, _PLACE["TERT"]] += 1.2 * mutated[:, _PLACE["TERT"]]
    wild = np.array([glioma.idh == "wildtype" for glioma in gliomas])
    methylated = rng.random(size) < np.where(wild, 0.42, 0.87)
    out[:, _PLACE["MGMT"]] -= 1.3 * methylated
    return out
