"""Genes of gliomas and which of them act together: nodes and edges of the gene graph.

Two genes are joined where they share a group. Pathways are those of the Cancer Genome Atlas:
receptor tyrosine kinases with RAS and PI3K, p53 and RB (Nature 2008; Brennan et al., Cell 2013),
telomere maintenance and IDH, 1p/19q, chromatin and NOTCH (NEJM 2015; Ceccarelli et al., Cell
2016). Loci are regions gained or lost as one. Programmes of expression follow Verhaak et al.,
Cancer Cell 2010.
"""

from itertools import combinations

ASSAYS = ("mutation", "copy_number", "expression")
"""What is known of a gene, in the order of the last axis of `batch.genes`: 0 or 1; -2 (both copies
lost) to 2 (amplified); z-score."""

PATHWAYS: dict[str, tuple[str, ...]] = {
    "telomere and IDH": ("IDH1", "IDH2", "TERT", "ATRX", "TP53"),
    "RTK, RAS, PI3K": (
        "EGFR",
        "PDGFRA",
        "KIT",
        "KDR",
        "MET",
        "FGFR1",
        "FGFR3",
        "NF1",
        "NRAS",
        "BRAF",
        "PTPN11",
        "PIK3CA",
        "PIK3R1",
        "PTEN",
        "AKT2",
        "MTOR",
    ),
    "p53": ("TP53", "MDM2", "MDM4", "CDKN2A", "BAX"),
    "RB": ("RB1", "CDK4", "CDK6", "CDKN2A", "CDKN2B", "CDKN2C", "CCND2", "PRKN"),
    "chromatin": ("ATRX", "ARID1A", "SMARCA4", "SETD2", "EZH2", "STAG2"),
    "NOTCH": ("NOTCH1", "DLL3", "ASCL1", "TCF12"),
    "CIC targets": ("CIC", "FUBP1", "MYC"),
}

LOCI: dict[str, tuple[str, ...]] = {
    "1p": ("CAMTA1", "ARID1A", "MTOR", "FUBP1", "NRAS", "CDKN2C", "SLC2A1"),
    "19q": ("CIC", "AKT2", "BAX", "TGFB1", "APOE", "DLL3"),
    "4q12": ("PDGFRA", "KIT", "KDR"),
    "7": ("EGFR", "CDK6", "MET", "BRAF", "EZH2", "HOXA9"),
    "9p21": ("CDKN2A", "CDKN2B", "MTAP"),
    "10q": ("PTEN", "MGMT", "MKI67"),
    "12q14": ("CDK4", "GLI1", "MDM2"),
}

PROGRAMMES: dict[str, tuple[str, ...]] = {
    "proliferation": ("MKI67", "TOP2A", "BUB1", "CCNB1", "EZH2", "MYC", "CDK4"),
    "hypoxia": ("VEGFA", "CA9", "ADM", "SLC2A1", "KDR"),
    "mesenchymal": ("CD44", "CHI3L1", "VIM", "STAT3", "TIMP1", "MET", "TGFB1", "APOE", "NF1"),
    "proneural": ("OLIG2", "SOX2", "DLL3", "ASCL1", "PDGFRA", "MYCN", "CCND2", "GLI1"),
}

GROUPS = {**PATHWAYS, **LOCI, **PROGRAMMES}

GENES: tuple[str, ...] = tuple(dict.fromkeys(gene for group in GROUPS.values() for gene in group))
"""Nodes, in the order of the genes of `batch.genes`."""

EDGES: tuple[tuple[int, int], ...] = tuple(
    sorted(
        {
            (GENES.index(a), GENES.index(b))
            for group in GROUPS.values()
            for a, b in combinations(sorted(group, key=GENES.index), 2)
        }
    )
)
"""Pairs of positions in `GENES`, the smaller first, each once."""
