"""The genes of the phantoms' gene table: where they lie, how often they are altered, with what.

Frequencies are rounded from TCGA: glioblastoma after Brennan et al., Cell 2013, IDH-mutant glioma
after the Cancer Genome Atlas Research Network, NEJM 2015 (TP53 94 % and ATRX 86 % without
codeletion; CIC, FUBP1, NOTCH1 with it), all after Ceccarelli et al., Cell 2016. Rare alterations,
arms other than 1p, 7, 10 and 19q, and all weights of expression are chosen, with the sign that
those papers and Verhaak et al., Cancer Cell 2010, give.
"""

from dataclasses import dataclass, field

MODULES = ("proliferation", "hypoxia", "mesenchymal", "proneural")
"""Programmes of expression, the low-rank part of it."""


@dataclass(frozen=True)
class Gene:
    """One gene; triples are of glioblastoma, astrocytoma, oligodendroglioma."""

    arm: str
    mutated: tuple[float, float, float] = (0.01, 0.01, 0.01)
    """Probability; of genes in `genes.py` that depend on others this is the base rate."""
    modules: dict[str, float] = field(default_factory=dict)
    """Module → weight in expression."""
    dosage: float = 0.5
    """Expression per copy, in units of the noise."""


GENES: dict[str, Gene] = {
    "IDH1": Gene("2q"),
    "IDH2": Gene("15q"),
    "TERT": Gene("5p", dosage=0.3),
    "TP53": Gene("17p", (0.3, 0.94, 0.03)),
    "ATRX": Gene("Xq", (0.06, 0.86, 0.03)),
    "CIC": Gene("19q", (0.01, 0.02, 0.6)),
    "FUBP1": Gene("1p", (0.01, 0.01, 0.3)),
    "NOTCH1": Gene("9q", (0.01, 0.06, 0.3)),
    "EGFR": Gene("7p", (0.26, 0.02, 0.01), dosage=1.2),
    "PTEN": Gene("10q", (0.31, 0.02, 0.02), dosage=0.7),
    "NF1": Gene("17q", (0.11, 0.05, 0.02)),
    "RB1": Gene("13q", (0.09, 0.02, 0.01)),
    "PIK3CA": Gene("3q", (0.1, 0.06, 0.18)),
    "PIK3R1": Gene("5q", (0.11, 0.05, 0.08)),
    "PDGFRA": Gene("4q", (0.04, 0.02, 0.01), {"proneural": 0.6}, 1.0),
    "KIT": Gene("4q", (0.01, 0.01, 0.01), {"proneural": 0.3}, 0.8),
    "KDR": Gene("4q", (0.01, 0.01, 0.01), {"hypoxia": 0.3}, 0.8),
    "CDKN2A": Gene("9p", (0.01, 0.01, 0.0), {"proliferation": 0.2}, 0.8),
    "CDKN2B": Gene("9p", (0.0, 0.0, 0.0), dosage=0.8),
    "MTAP": Gene("9p", (0.0, 0.0, 0.0), dosage=1.0),
    "CDK4": Gene("12q", (0.01, 0.0, 0.0), {"proliferation": 0.4}, 1.0),
    "CDK6": Gene("7q", (0.01, 0.0, 0.0), {"proliferation": 0.2}, 0.8),
    "MDM2": Gene("12q", (0.0, 0.0, 0.0), dosage=1.0),
    "MDM4": Gene("1q", (0.0, 0.0, 0.0), dosage=0.9),
    "GLI1": Gene("12q", (0.01, 0.0, 0.0), {"proneural": 0.2}, 0.7),
    "MET": Gene("7q", (0.02, 0.01, 0.0), {"mesenchymal": 0.5}, 0.6),
    "BRAF": Gene("7q", (0.02, 0.01, 0.01)),
    "FGFR1": Gene("8p", (0.01, 0.01, 0.01), {"mesenchymal": 0.2}),
    "FGFR3": Gene("4p", (0.01, 0.01, 0.01)),
    "MYC": Gene("8q", (0.0, 0.01, 0.0), {"proliferation": 0.4}, 0.6),
    "MYCN": Gene("2p", (0.01, 0.01, 0.0), {"proneural": 0.3}, 0.8),
    "CCND2": Gene("12p", (0.0, 0.0, 0.0), {"proneural": 0.3}, 0.7),
    "CDKN2C": Gene("1p", (0.01, 0.0, 0.01), {"proliferation": 0.3}),
    "NRAS": Gene("1p", (0.01, 0.01, 0.01)),
    "MTOR": Gene("1p", (0.01, 0.01, 0.01)),
    "ARID1A": Gene("1p", (0.01, 0.04, 0.05)),
    "CAMTA1": Gene("1p", dosage=0.8),
    "AKT2": Gene("19q", (0.01, 0.0, 0.0)),
    "BAX": Gene("19q", (0.0, 0.0, 0.0)),
    "TGFB1": Gene("19q", (0.0, 0.0, 0.0), {"mesenchymal": 0.5}),
    "APOE": Gene("19q", (0.0, 0.0, 0.0), {"mesenchymal": 0.2}),
    "SMARCA4": Gene("19p", (0.01, 0.06, 0.03)),
    "SETD2": Gene("3p", (0.02, 0.02, 0.05)),
    "STAG2": Gene("Xq", (0.04, 0.01, 0.01)),
    "PTPN11": Gene("12q", (0.02, 0.01, 0.01)),
    "TCF12": Gene("15q", (0.01, 0.01, 0.06)),
    "PRKN": Gene("6q", (0.01, 0.0, 0.0)),
    "MGMT": Gene("10q", (0.0, 0.0, 0.0), dosage=0.4),
    "MKI67": Gene("10q", (0.02, 0.01, 0.01), {"proliferation": 1.3}, 0.1),
    "TOP2A": Gene("17q", (0.01, 0.01, 0.0), {"proliferation": 1.3}, 0.1),
    "BUB1": Gene("2q", (0.01, 0.0, 0.0), {"proliferation": 1.1}, 0.1),
    "CCNB1": Gene("5q", (0.0, 0.0, 0.0), {"proliferation": 1.1}, 0.1),
    "EZH2": Gene("7q", (0.01, 0.0, 0.0), {"proliferation": 0.8}, 0.3),
    "HOXA9": Gene("7p", (0.0, 0.0, 0.0), {"proliferation": 0.3}, 0.4),
    "VEGFA": Gene("6p", (0.0, 0.0, 0.0), {"hypoxia": 1.2}, 0.2),
    "CA9": Gene("9p", (0.0, 0.0, 0.0), {"hypoxia": 1.2}, 0.1),
    "ADM": Gene("11p", (0.0, 0.0, 0.0), {"hypoxia": 1.1}, 0.2),
    "SLC2A1": Gene("1p", (0.0, 0.0, 0.0), {"hypoxia": 0.8}, 0.3),
    "CD44": Gene("11p", (0.0, 0.0, 0.0), {"mesenchymal": 1.2, "proneural": -0.3}, 0.2),
    "CHI3L1": Gene("1q", (0.0, 0.0, 0.0), {"mesenchymal": 1.2, "hypoxia": 0.2}, 0.1),
    "VIM": Gene("10p", (0.0, 0.0, 0.0), {"mesenchymal": 1.0}, 0.2),
    "STAT3": Gene("17q", (0.01, 0.0, 0.0), {"mesenchymal": 0.7}),
    "TIMP1": Gene("Xp", (0.0, 0.0, 0.0), {"mesenchymal": 1.1, "hypoxia": 0.3}, 0.1),
    "OLIG2": Gene("21q", (0.0, 0.0, 0.0), {"proneural": 1.1}, 0.2),
    "SOX2": Gene("3q", (0.0, 0.0, 0.0), {"proneural": 0.5}, 0.4),
    "DLL3": Gene("19q", (0.01, 0.0, 0.0), {"proneural": 1.3}, 0.2),
    "ASCL1": Gene("12q", (0.0, 0.0, 0.0), {"proneural": 1.0}, 0.2),
}

CODELETED = frozenset({"1p", "19q"})
"""Arms lost by definition where 1p/19q is codeleted."""

ARM_GAIN: dict[str, tuple[float, float, float]] = {
    "8q": (0.08, 0.25, 0.05),
    "12p": (0.08, 0.15, 0.05),
    "1q": (0.1, 0.05, 0.05),
    "19p": (0.35, 0.05, 0.05),
    "3q": (0.08, 0.05, 0.03),
    "5p": (0.08, 0.04, 0.03),
}
"""Probability of one more copy; of arms not named, 3 %. Chromosome 7 is drawn in `genes.py`."""

ARM_LOSS: dict[str, tuple[float, float, float]] = {
    "1p": (0.04, 0.05, 0.0),
    "19q": (0.06, 0.15, 0.0),
    "9p": (0.35, 0.25, 0.2),
    "13q": (0.35, 0.25, 0.15),
    "17p": (0.15, 0.2, 0.03),
    "6q": (0.25, 0.15, 0.05),
    "4p": (0.05, 0.12, 0.3),
    "4q": (0.06, 0.12, 0.3),
    "15q": (0.2, 0.08, 0.18),
    "11p": (0.1, 0.3, 0.04),
    "5q": (0.05, 0.1, 0.03),
}
"""Probability of one copy less, as above."""

Event = tuple[tuple[str, ...], tuple[float, float, float]]

AMPLIFIED: dict[str, Event] = {
    "EGFR": (("EGFR",), (0.43, 0.02, 0.0)),
    "4q12": (("PDGFRA", "KIT", "KDR"), (0.13, 0.07, 0.0)),
    "CDK4": (("CDK4", "GLI1"), (0.14, 0.08, 0.0)),
    "MDM2": (("MDM2",), (0.08, 0.02, 0.0)),
    "MDM4": (("MDM4",), (0.08, 0.03, 0.0)),
    "MET": (("MET",), (0.02, 0.03, 0.0)),
    "MYC": (("MYC",), (0.01, 0.04, 0.0)),
    "MYCN": (("MYCN",), (0.03, 0.02, 0.0)),
    "CCND2": (("CCND2",), (0.02, 0.06, 0.0)),
}
"""Focal gain: the genes on it, and its probability."""

DELETED: dict[str, Event] = {
    "9p21": (("CDKN2A", "CDKN2B", "MTAP"), (0.58, 0.0, 0.0)),
    "PTEN": (("PTEN",), (0.1, 0.0, 0.0)),
    "RB1": (("RB1",), (0.06, 0.02, 0.0)),
    "CDKN2C": (("CDKN2C",), (0.03, 0.0, 0.0)),
}
"""Homozygous focal loss; of 9p21 in astrocytoma by grade, in `genes.py`."""
