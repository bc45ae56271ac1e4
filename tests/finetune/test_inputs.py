"""What a model needs of every case is asked for before anything is trained or predicted."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from gliomoe.data_shards.batch import collate
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.cases import labelled_cases
from gliomoe.finetune.dataset import read_case
from gliomoe.finetune.inputs import gene_tables, with_inputs


def model(sequences=(), genes=()):
    encoder = SimpleNamespace(sequences=sequences)
    return SimpleNamespace(encoder=encoder, genes=genes, config={"name": "net"})


@pytest.fixture
def shards(ball_shards):
    return ShardSet.open(ball_shards(range(3)))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "genes.tsv"
    path.write_text(
        "participant_id\tTP53_mutation\tTP53_copy_number\tTP53_expression\t"
        "IDH1_mutation\tIDH1_copy_number\tIDH1_expression\n"
        "sub-case-0\t1\t-1\t0.5\t0\t0\tn/a\n"
        "CASE_2\t0\t2\t-1.5\t1\t0\t2.25\n"
    )
    return path


def test_a_case_that_lacks_a_sequence_is_named(shards):
    cases = labelled_cases(shards, None, ("seg",))
    assert with_inputs(model(("t1", "flair")), shards, cases, None) == cases
    with pytest.raises(UsageError, match="net needs t1, t2; case case-0 lacks t2"):
        with_inputs(model(("t1", "t2")), shards, cases, None)


def test_genes_reach_the_batch_in_the_model_s_order(shards, table):
    cases = labelled_cases(shards, None, ("seg",))
    cases = with_inputs(model(genes=("IDH1", "TP53")), shards, cases, table)
    batch = collate([read_case(shards, case) for case in cases])
    assert batch.genes.shape == (3, 2, 3)
    nan = float("nan")
    first = torch.tensor([[0, 0, nan], [1, -1, 0.5]])
    torch.testing.assert_close(batch.genes[0], first, equal_nan=True)
    assert batch.genes[1].isnan().all()  # no row: unknown
    assert batch.genes[2, 0].tolist() == [1, 0, 2.25]
    assert replace(batch).to("cpu").genes is not None


def test_a_gene_table_is_asked_for_and_not_ignored(table):
    with pytest.raises(UsageError, match="net needs the cases' gene table: give it with --genes"):
        gene_tables(model(genes=("IDH1",)), None)
    with pytest.raises(UsageError, match="net takes no genes; leave --genes out"):
        gene_tables(model(), table)
