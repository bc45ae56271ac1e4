"""Gene tables give what the model asks for, or one line that says why not."""

import math

import pytest
import torch

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.phantom.patients.genes import ASSAYS as PHANTOM_ASSAYS
from gliomoe.data_shards.phantom.patients.genes import GENE_COLUMNS
from gliomoe.finetune.gene_table import ASSAYS, read_gene_table
from gliomoe.models.glioma_genes import ASSAYS as MODEL_ASSAYS
from gliomoe.models.glioma_genes import GENES

HEADER = (
    "participant_id\tB_mutation\tA_mutation\tC_mutation\t"
    "A_copy_number\tB_copy_number\tA_expression\tB_expression"
)


def write(folder, *rows, header=HEADER, name="genes.tsv"):
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", "utf-8")
    return path


def test_values_in_the_order_of_the_model(tmp_path):
    path = write(tmp_path, "sub-1\t1\t0\t1\t-2\t2\t0.25\t-1.5", "sub-2\tn/a\t1\t0\tNA\t0\t\t1e-1")
    table = read_gene_table(path, ("A", "B"))
    assert list(table) == ["sub-1", "sub-2"]
    assert table["sub-1"].tolist() == [[0, -2, 0.25], [1, 2, -1.5]]
    nan = math.nan
    torch.testing.assert_close(
        table["sub-2"], torch.tensor([[1, nan, nan], [nan, 0, 0.1]]), equal_nan=True
    )
    assert table["sub-2"].dtype == torch.float32
    assert table["sub-1"][:1].equal(read_gene_table(path, ("A",))["sub-1"])


def test_the_table_of_phantoms(tmp_path):
    assert ASSAYS == PHANTOM_ASSAYS == MODEL_ASSAYS
    values = {name: n for n, name in enumerate(GENE_COLUMNS)}
    header = "\t".join(["participant_id", *values])
    path = write(tmp_path, "\t".join(["sub-1", *map(str, values.values())]), header=header)
    found = read_gene_table(path, GENES)["sub-1"]
    for g, gene in enumerate(GENES):
        for a, assay in enumerate(ASSAYS):
            assert found[g, a] == values[f"{gene}_{assay}"]


FIELDS = "\t0\t0\t0\t0\t0\t0\t0"


@pytest.mark.parametrize(
    ("rows", "genes", "message"),
    [
        (["s" + FIELDS], ("A", "D"), "3 of 6 columns .* missing: D_mutation, D_copy_number"),
        (["s" + FIELDS], ("A", "C"), "2 of 6 columns .* missing: C_copy_number, C_expression"),
        (["s" + FIELDS, "s" + FIELDS], ("A",), "line 3: s is in line 2 already"),
        (["s\t0\tyes\t0\t0\t0\t0\t0"], ("A",), r"line 2 \(s\), A_mutation: 'yes' is not a number"),
        (["s\t0\t0\t0\t0\t0\tinf\t0"], ("A",), "A_expression: 'inf' is not a number"),
        (["" + FIELDS], ("A",), "line 2: no subject in column participant_id"),
        (["s\t0"], ("A",), "line 2: 2 cells, the header has 8"),
        ([], ("A",), "needs a header line and at least one case"),
    ],
)
def test_wrong_tables(tmp_path, rows, genes, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_gene_table(write(tmp_path, *rows), genes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("age\tA_mutation\tA_copy_number\tA_expression", "no column names the subjects"),
        ("id\tA_mutation\tA_mutation\tA_copy_number\tA_expression", "two columns .* A_mutation"),
    ],
)
def test_wrong_headers(tmp_path, header, message):
    row = "\t".join(["1"] * (header.count("\t") + 1))
    with pytest.raises(UsageError, match=message):
        read_gene_table(write(tmp_path, row, header=header), ("A",))


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match="no such gene table"):
        read_gene_table(tmp_path / "none.tsv", ("A",))
