"""The gene graph of MDL-CA: the genes that the phantoms have, each with neighbours."""

from gliomoe.data_shards.phantom.patients.gene_table import CODELETED
from gliomoe.data_shards.phantom.patients.gene_table import GENES as PHANTOM_GENES
from gliomoe.data_shards.phantom.patients.genes import ASSAYS as PHANTOM_ASSAYS
from gliomoe.models.glioma_genes import ASSAYS, EDGES, GENES, GROUPS, LOCI


def test_genes_and_assays_are_those_of_the_phantoms():
    assert set(GENES) == set(PHANTOM_GENES)
    assert len(GENES) == len(set(GENES))
    assert ASSAYS == PHANTOM_ASSAYS


def test_loci_lie_where_the_phantoms_have_them():
    for locus, genes in LOCI.items():
        for gene in genes:
            arm = PHANTOM_GENES[gene].arm
            assert arm.startswith(locus) or locus.startswith(arm), (locus, gene)
    for arm in CODELETED:
        assert set(LOCI[arm]) == {g for g, known in PHANTOM_GENES.items() if known.arm == arm}


def test_edges_join_what_shares_a_group():
    joined = {
        (a, b)
        for a in range(len(GENES))
        for b in range(a + 1, len(GENES))
        if any(GENES[a] in group and GENES[b] in group for group in GROUPS.values())
    }
    assert set(EDGES) == joined
    assert len(EDGES) == len(joined)


def test_every_gene_has_a_neighbour():
    assert {n for edge in EDGES for n in edge} == set(range(len(GENES)))
