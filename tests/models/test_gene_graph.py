"""Graph attention over genes against its definition, node by node and edge by edge."""

import sys

import pytest
import torch
import torch.nn.functional as F

from gliomoe.models import create_model
from gliomoe.models.blocks.gene_graph import GeneGraph, normalised_adjacency
from gliomoe.models.errors import ModelError

GENES, EDGES = 5, [(0, 1), (1, 2), (0, 3), (2, 3)]


@pytest.fixture
def graph():
    torch.manual_seed(0)
    made = GeneGraph(GENES, 3, EDGES, node_width=4, heads=2, width=6, dropout=0.0)
    torch.nn.init.normal_(made.bias)
    return made


@pytest.fixture
def values():
    table = torch.randn(2, GENES, 3, generator=torch.Generator().manual_seed(1))
    table[0, 2, 1] = table[1, 3] = float("nan")
    return table


def adjacency():
    """D^-1/2 (A + I) D^-1/2, dense."""
    a = torch.eye(GENES)
    for one, other in EDGES:
        a[one, other] = a[other, one] = 1
    root = a.sum(1).rsqrt().diag()
    return root @ a @ root


def slow_layer(conv, x, heads):
    """Eq. 6-7 with the adjacency as a feature of the edges."""
    weights, width = adjacency(), conv.out_channels
    out = torch.zeros(GENES, heads * width)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        projected = x @ conv.lin.weight[part].T
        for target in range(GENES):
            near = [s for s in range(GENES) if weights[s, target] > 0]
            scores = [
                F.leaky_relu(
                    conv.att_src[0, head] @ projected[source]
                    + conv.att_dst[0, head] @ projected[target]
                    + conv.att_edge[0, head]
                    @ (conv.lin_edge.weight[part, 0] * weights[source, target]),
                    0.2,
                )
                for source in near
            ]
            shares = torch.stack(scores).softmax(0)
            for share, source in zip(shares, near, strict=True):
                out[target, part] += share * projected[source]
    return out + conv.bias


def slow_graph(graph, table):
    """Embeddings [G, width] of one patient."""
    nodes = []
    for gene in range(GENES):
        row = graph.bias[gene].clone()
        for assay in range(3):
            value = table[gene, assay]
            if value.isnan():
                row += graph.weight[gene, 3 + assay]
            else:
                row += value * graph.weight[gene, assay]
        nodes.append(row)
    x = F.leaky_relu(slow_layer(graph.first, torch.stack(nodes), 2), 0.2)
    return slow_layer(graph.second, x, 1)


def test_adjacency():
    pairs, weights = normalised_adjacency(GENES, EDGES)
    dense = torch.zeros(GENES, GENES)
    for (source, target), weight in zip(pairs, weights, strict=True):
        dense[source, target] = weight
    torch.testing.assert_close(dense, adjacency())
    assert len(pairs) == GENES + 2 * len(EDGES)


def test_against_the_definition(graph, values):
    embeddings, vector = graph(values)
    for study in range(2):
        expected = slow_graph(graph, values[study])
        torch.testing.assert_close(embeddings[study], expected)
        torch.testing.assert_close(vector[study], expected.mean(0))


def test_gradients_against_the_definition(graph, values):
    parameters = dict(graph.named_parameters())
    probe = torch.randn(2, GENES, 6, generator=torch.Generator().manual_seed(2))
    fast = torch.autograd.grad((graph(values)[0] * probe).sum(), list(parameters.values()))
    slow = torch.stack([slow_graph(graph, table) for table in values])
    expected = torch.autograd.grad((slow * probe).sum(), list(parameters.values()))
    for name, a, b in zip(parameters, fast, expected, strict=True):
        torch.testing.assert_close(a, b, msg=name, atol=1e-4, rtol=1e-4)


def test_unknown_is_not_zero(graph, values):
    zeros = values.nan_to_num(0)
    assert (graph(values)[1] - graph(zeros)[1]).abs().min() > 1e-4


def test_no_genes_at_all_is_one_embedding(graph):
    nothing = torch.full((2, GENES, 3), float("nan"))
    vector = graph(nothing)[1]
    assert vector.isfinite().all()
    torch.testing.assert_close(vector[0], vector[1])
    vector.sum().backward()
    assert graph.weight.grad[:, 3:].ne(0).any(2).all()
    assert not graph.weight.grad[:, :3].any()


def test_far_genes_do_not_touch(graph, values):
    changed = values.clone()
    changed[:, 4] += 1  # no edges but its loop
    a, b = graph(values)[0], graph(changed)[0]
    torch.testing.assert_close(a[:, :4], b[:, :4])
    assert (a[:, 4] - b[:, 4]).abs().max() > 1e-3


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", None)
    with pytest.raises(ModelError, match=r"mdl_ca needs torch-geometric: pip install 'gliomoe\["):
        create_model("mdl_ca", ("grade",))
    create_model("mdl_ca", (), layers=(1, 1, 1, 1))
