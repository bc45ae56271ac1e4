"""MDL-CA: MRI and genes, fused by cross-attention (Sarwar et al., file 001_f9902db458654b34.txt).

The genes of the table hold IDH, TERT and the arms 1p and 19q, so the tasks of these names are
partly read off the input. What the system can be measured by is the paper's own task, the
diagnosis, here the grade.

The paper's ablations are the settings `genomics` and `cross_attention`; its row without MRI is no
model of images and not offered. Choices where the paper is silent: genes are injected into the
last map of the MRI branch (eq. 13-15) and then fused with it (eq. 8-12), so that the encoder can be
pretrained without genes; the mean over the positions of the fused map goes to the head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gliomoe.models.blocks.cross_attention_fusion import (
    CrossAttentionFusion,
    CrossModalGraphAttention,
)
from gliomoe.models.blocks.gene_graph import GeneGraph
from gliomoe.models.encoders.densenet import DenseNetEncoder, MDLCAConfig
from gliomoe.models.errors import ModelError
from gliomoe.models.features import Predictions
from gliomoe.models.glioma_genes import ASSAYS, EDGES, GENES
from gliomoe.models.heads.entmax import EntmaxHead
from gliomoe.models.heads.markers import MARKERS
from gliomoe.models.model import Model
from gliomoe.models.settings import changed
from gliomoe.models.tissue import Batch

TASKS = ("idh", "1p19q", "tert", "grade", "hgg")


class MDLCA(Model):
    """MRI encoder, gene graph, cross-attention, dense head with entmax."""

    def forward(self, batch: Batch) -> Predictions:
        """Predictions for all tasks.

        `maps` has the weight of MRI against the genes (`mri`) and the attention of each position
        to each gene (`genes`, in the order of `Model.genes`).

        Raises:
            ModelError: If the batch has no genes, or not those of `Model.genes`.
        """
        features = self.encoder(batch)
        if not self.heads:
            return Predictions(seg=None, markers={}, features=features)
        fused, maps = features.pyramid[-1], {}
        genomic = None
        if self.genes:
            embeddings, genomic = self.heads["genes"](self._checked(batch.genes))
        if "fusion" in self.heads:
            fused, maps["genes"] = self.heads["injection"](fused, embeddings)
            fused, maps["mri"] = self.heads["fusion"](fused, genomic)
        vector = fused.float().mean((2, 3, 4))
        if genomic is not None and "fusion" not in self.heads:
            vector = torch.cat([vector, genomic], dim=1)
        return Predictions(
            seg=None,
            markers=self.heads["markers"](vector),
            features=features,
            activation="entmax15",
            maps={} if self.training else maps,
        )

    def _checked(self, genes: Tensor | None) -> Tensor:
        """Genes [B, G, A] of the batch."""
        if genes is None:
            raise ModelError(
                "mdl_ca needs the genes of each study: give a gene table, or set genomics to false"
            )
        if genes.shape[1:] != (len(self.genes), len(ASSAYS)):
            raise ModelError(
                f"mdl_ca needs {len(self.genes)} genes with {len(ASSAYS)} assays each, got "
                f"{' x '.join(map(str, genes.shape[1:]))}: read the gene table for Model.genes"
            )
        return genes


def build(preset: MDLCAConfig, tasks: Sequence[str], **settings: Any) -> Model:
    """A model of a preset with some settings changed; `ModelError` if one is unknown."""
    config = changed("mdl_ca", preset, settings)
    heads: dict[str, nn.Module] = {}
    width = config.width
    if tasks and config.genomics:
        heads["genes"] = GeneGraph(
            len(GENES),
            len(ASSAYS),
            EDGES,
            node_width=config.node_width,
            heads=config.graph_heads,
            width=width,
            dropout=config.graph_dropout,
        )
        if config.cross_attention:
            heads["injection"] = CrossModalGraphAttention(width, width, config.attention_hidden)
            heads["fusion"] = CrossAttentionFusion(width, width, width, config.attention_hidden)
        else:
            width *= 2
    if tasks:
        classes = {task: MARKERS[task] for task in tasks}
        heads["markers"] = EntmaxHead(
            width, config.dense, classes, config.dropout, config.head_norm
        )
    model = MDLCA(DenseNetEncoder(config), heads, tasks)
    model.genes = GENES if config.genomics else ()
    return model
