"""Phantom genes: frequencies, what goes together, gaps."""

import numpy as np
import pytest

from gliomoe.data_shards.phantom.patients.ceiling import (
    auc,
    truth,
)
from gliomoe.data_shards.phantom.patients.gene_table import GENES
from gliomoe.data_shards.phantom.patients.genes import (
    ASSAYS,
    GENE_COLUMNS,
    GENE_DESCRIPTIONS,
    draw_genes,
)
from gliomoe.data_shards.phantom.patients.markers import (
    GLIOMA_TYPES,
)


@pytest.fixture(scope="module")
def genes(tumours):
    """Column → [N] values without gaps."""
    rng = np.random.default_rng(4)
    rows = [draw_genes(glioma, rng, missing=0.0) for glioma in tumours]
    return {column: np.array([row[column] for row in rows]) for column in GENE_COLUMNS}


def of(tumours, who_type: str) -> np.ndarray:
    return np.array([glioma.who_type == who_type for glioma in tumours])


def test_gene_table_is_whole_and_repeatable(tumours, genes):
    assert len(GENES) >= 60 and len(GENE_COLUMNS) == len(set(GENE_COLUMNS)) == 3 * len(GENES)
    assert list(GENE_DESCRIPTIONS) == list(GENE_COLUMNS)
    rows = [draw_genes(tumours[0], np.random.default_rng(9)) for _ in range(2)]
    assert rows[0] == rows[1] and tuple(rows[0]) == GENE_COLUMNS
    assert rows[0] != draw_genes(tumours[0], np.random.default_rng(10))
    for column, values in genes.items():
        if column.endswith("mutation"):
            assert set(np.unique(values)) <= {0, 1}
        elif column.endswith("copy_number"):
            assert set(np.unique(values)) <= {-2, -1, 0, 1, 2}
        else:
            assert abs(values.mean()) < 0.15 and values.std() == pytest.approx(1, abs=0.12)


def test_defining_mutations(tumours, genes):
    mutant = np.array([glioma.idh == "mutant" for glioma in tumours])
    np.testing.assert_array_equal(genes["IDH1_mutation"] + genes["IDH2_mutation"], mutant)
    assert genes["IDH2_mutation"].sum() < 0.15 * mutant.sum()
    tert = [glioma.tert == "mutant" for glioma in tumours]
    np.testing.assert_array_equal(genes["TERT_mutation"], tert)
    codeleted = of(tumours, "oligodendroglioma")
    for gene in ("NRAS", "FUBP1", "CAMTA1", "CIC", "BAX", "AKT2"):
        lost = genes[f"{gene}_copy_number"] < 0
        assert lost[codeleted].mean() > 0.95
        assert lost[~codeleted].mean() < 0.2


@pytest.mark.parametrize(
    ("column", "value", "shares"),
    [
        ("TP53_mutation", 1, (0.28, 0.94, 0.03)),
        ("ATRX_mutation", 1, (0.06, 0.86, 0.03)),
        ("CIC_mutation", 1, (0.01, 0.02, 0.6)),
        ("FUBP1_mutation", 1, (0.01, 0.01, 0.3)),
        ("NOTCH1_mutation", 1, (0.01, 0.06, 0.3)),
        ("PTEN_mutation", 1, (0.31, 0.02, 0.02)),
        ("EGFR_mutation", 1, (0.26, 0.02, 0.01)),
        ("EGFR_copy_number", 2, (0.43, 0.01, 0.0)),
        ("CDKN2A_copy_number", -2, (0.58, 0.09, 0.0)),
        ("PDGFRA_copy_number", 2, (0.13, 0.04, 0.0)),
        ("CDK4_copy_number", 2, (0.14, 0.06, 0.0)),
    ],
)
def test_frequencies_of_alterations(tumours, genes, column, value, shares):
    for who_type, share in zip(GLIOMA_TYPES, shares, strict=True):
        ours = of(tumours, who_type)
        assert np.mean(genes[column][ours] == value) == pytest.approx(share, abs=0.08)


def test_genes_go_together_as_published(tumours, genes):
    def together(first, second, among=slice(None)):
        return np.corrcoef(first[among], second[among])[0, 1]

    glioblastoma, astrocytoma, oligodendroglioma = (of(tumours, name) for name in GLIOMA_TYPES)
    assert together(genes["ATRX_mutation"], genes["TP53_mutation"], astrocytoma) > 0.15
    assert together(genes["ATRX_mutation"], genes["TERT_mutation"]) < -0.5
    assert together(genes["CIC_mutation"], genes["FUBP1_mutation"], oligodendroglioma) > 0.2
    seven, ten = genes["BRAF_copy_number"], genes["VIM_copy_number"]
    assert together(seven, ten, glioblastoma) < -0.3
    amplified = genes["EGFR_copy_number"] == 2
    assert together(amplified, genes["EGFR_mutation"], glioblastoma) > 0.2
    assert together(amplified, genes["EGFR_expression"]) > 0.4
    no_p16 = genes["CDKN2A_copy_number"] == -2
    assert together(no_p16, genes["CDK4_copy_number"] == 2, glioblastoma) < -0.1
    assert together(genes["CDKN2A_copy_number"], genes["CDKN2B_copy_number"]) > 0.8
    assert together(genes["MKI67_expression"], genes["TOP2A_expression"]) > 0.5
    assert together(genes["CD44_expression"], genes["OLIG2_expression"]) < -0.3
    assert together(genes["VEGFA_expression"], genes["CA9_expression"]) > 0.5
    grade = np.array([glioma.grade for glioma in tumours])
    assert together(genes["MKI67_expression"], grade, astrocytoma) > 0.3
    ring = np.array([glioma.enhancement == "ring" for glioma in tumours])
    assert together(genes["CA9_expression"], ring, glioblastoma) > 0.08
    mutant = np.array([glioma.idh == "mutant" for glioma in tumours])
    assert -0.6 < together(genes["MGMT_expression"], mutant) < 0.1
    assert together(genes["TERT_expression"], genes["TERT_mutation"]) > 0.3


def test_no_single_gene_gives_a_marker_away(tumours, genes):
    true = truth([(glioma.who_type, glioma.grade, glioma.tert) for glioma in tumours])
    defining = {"idh": {"IDH1_mutation"}, "tert": {"TERT_mutation"}, "1p19q": set()}
    defining["1p19q"] = {
        f"{gene}_copy_number" for gene, facts in GENES.items() if facts.arm in ("1p", "19q")
    }
    for marker, named in defining.items():
        for column in set(GENE_COLUMNS) - named:
            area = auc(true[marker], genes[column])[0]
            assert max(area, 1 - area) < 0.93, column


@pytest.mark.parametrize("missing", [0.0, 0.06, 0.5, 1.0])
def test_missing_values(tumours, missing):
    rng = np.random.default_rng(8)
    rows = [draw_genes(glioma, rng, missing=missing) for glioma in tumours[:400]]
    gone = np.array([[row[column] is None for column in GENE_COLUMNS] for row in rows])
    assert gone.mean() == pytest.approx(missing, abs=0.05 if 0 < missing < 1 else 0)
    if missing == 0.5:  # whole assays and single values alike
        whole = gone.reshape(400, len(ASSAYS), len(GENES)).all(2)
        assert whole.mean() == pytest.approx(1 - np.sqrt(0.5), abs=0.06)


def test_missing_must_be_a_share(tumours):
    with pytest.raises(ValueError, match=r"1\.5"):
        draw_genes(tumours[0], np.random.default_rng(0), missing=1.5)
