"""Graph attention over genes: what is known of a patient's genes → one vector, and one per gene."""

import warnings
from collections.abc import Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.errors import ModelError

NEGATIVE_SLOPE = 0.2
"""Of every LeakyReLU, in the attention and between the layers."""


def geometric_package() -> ModuleType:
    """The package `torch_geometric`, which comes with the extra `genes`."""
    try:
        with warnings.catch_warnings():  # its own use of what torch gives up
            warnings.simplefilter("ignore", FutureWarning)
            import torch_geometric.nn
    except ImportError:
        raise ModelError("mdl_ca needs torch-geometric: pip install 'gliomoe[genes]'") from None
    return torch_geometric


def normalised_adjacency(
    nodes: int, edges: Sequence[tuple[int, int]]
) -> tuple[list[tuple[int, int]], list[float]]:
    """D^-1/2 (A + I) D^-1/2 of an undirected graph: both directions of an edge, and the loops.

    Args:
        nodes: Number of nodes.
        edges: Pairs of different nodes, each pair once.

    Returns:
        (source, target) and the weight of each.
    """
    pairs = [(n, n) for n in range(nodes)]
    pairs += [pair for a, b in edges for pair in ((a, b), (b, a))]
    degree = [0] * nodes
    for _, target in pairs:
        degree[target] += 1
    return pairs, [(degree[a] * degree[b]) ** -0.5 for a, b in pairs]


class GeneGraph(nn.Module):
    """Two layers of graph attention, 8 heads and then 1 (MDL-CA, eq. 6-7).

    Choices where the paper is silent: every gene has input weights of its own, without which two
    genes with the same neighbours would be one; the normalised adjacency enters the attention as
    the feature of an edge; the vector of a patient is the mean over its genes. A value that is not
    known is 0, and an indicator says so: a patient without any gets what the indicators alone
    give, a learned embedding of "no genes".
    """

    edges: Tensor
    adjacency: Tensor

    def __init__(
        self,
        genes: int,
        assays: int,
        edges: Sequence[tuple[int, int]],
        *,
        node_width: int,
        heads: int,
        width: int,
        dropout: float,
    ):
        geometric = geometric_package()
        super().__init__()
        self.weight = nn.Parameter(torch.empty(genes, 2 * assays, node_width))
        self.bias = nn.Parameter(torch.zeros(genes, node_width))
        nn.init.normal_(self.weight, std=(2 * assays) ** -0.5)
        shared = {
            "edge_dim": 1,
            "dropout": dropout,
            "add_self_loops": False,
            "negative_slope": NEGATIVE_SLOPE,
        }
        self.first = geometric.nn.GATConv(node_width, width // heads, heads, **shared)
        self.second = geometric.nn.GATConv(width // heads * heads, width, 1, **shared)
        self.dropout = nn.Dropout(dropout)
        pairs, weights = normalised_adjacency(genes, edges)
        self.register_buffer("edges", torch.tensor(pairs).t().contiguous())
        self.register_buffer("adjacency", torch.tensor(weights).unsqueeze(1))

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of the genes and of the patients, in float32, for the graph is small.

        Args:
            values: [B, G, A], NaN where unknown.

        Returns:
            [B, G, width] and [B, width].
        """
        with torch.autocast(values.device.type, enabled=False):
            values = values.float()
            unknown = values.isnan()
            known = torch.cat([values.masked_fill(unknown, 0), unknown.float()], dim=2)
            nodes = torch.einsum("bga,gaw->bgw", known, self.weight) + self.bias
            studies, genes = nodes.shape[:2]
            first_of_study = genes * torch.arange(studies, device=nodes.device)
            edges = (self.edges.unsqueeze(1) + first_of_study[None, :, None]).flatten(1)
            adjacency = self.adjacency.repeat(studies, 1)
            x = self.first(nodes.flatten(0, 1), edges, adjacency)
            x = self.dropout(F.leaky_relu(x, NEGATIVE_SLOPE))
            x = self.second(x, edges, adjacency).unflatten(0, (studies, genes))
        return x, x.mean(1)
