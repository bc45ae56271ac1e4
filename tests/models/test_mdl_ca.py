"""MDL-CA is MONAI's DenseNet joined by genes."""

from dataclasses import replace

import pytest
import torch

from gliomoe.models import create_model
from gliomoe.models.encoders.densenet import DenseNetEncoder, MDLCAConfig
from gliomoe.models.errors import ModelError
from gliomoe.models.features import Predictions
from gliomoe.models.glioma_genes import GENES
from gliomoe.models.registry import parameter_counts

TASKS = ("idh", "1p19q", "tert", "grade")
SMALL = {
    "layers": (2, 3, 2, 2),
    "growth": 4,
    "stem_channels": 8,
    "width": 16,
    "node_width": 8,
    "graph_heads": 2,
    "attention_hidden": 8,
    "dense": (32, 16),
}
FOUR = (0, 1, 2, 3)


def small(tasks=TASKS, **settings):
    torch.manual_seed(0)
    return create_model("mdl_ca", tasks, **{**SMALL, **settings})


@pytest.fixture
def batch(make_batch):
    genes = torch.randn(2, len(GENES), 3, generator=torch.Generator().manual_seed(0))
    return replace(make_batch([FOUR, (3, 1)]), genes=genes)


def test_the_branches_of_the_paper():
    with torch.device("meta"):
        model = create_model("mdl_ca", TASKS)
    assert model.encoder.channels == (1, 64, 256, 512, 1024, 256)
    first, second = model.heads["genes"].first, model.heads["genes"].second
    assert (first.heads, second.heads, second.out_channels) == (8, 1, 256)
    assert [d.p for d in model.modules() if isinstance(d, torch.nn.Dropout)] == [
        *[0.2] * 4,
        0.3,
        0.3,
    ]
    assert 11.9e6 < parameter_counts(model)[0] < 12.2e6


def test_the_encoder_is_that_of_monai(make_batch):
    from monai.networks.nets import DenseNet

    torch.manual_seed(1)
    theirs = DenseNet(3, 1, 1, init_features=8, growth_rate=4, block_config=(2, 3, 2, 2)).eval()
    torch.manual_seed(1)
    config = MDLCAConfig(layers=(2, 3, 2, 2), growth=4, stem_channels=8, width=16)
    encoder = DenseNetEncoder(config).eval()
    levels = encoder(make_batch([(1,)], (64, 32, 32))).pyramid
    with torch.no_grad():
        expected = theirs.features(levels[0])
        expected = encoder.project[2](expected.relu())
    torch.testing.assert_close(levels[-1], expected)


def test_what_is_left_out_is_not_built(batch):
    assert set(small().heads) == {"genes", "injection", "fusion", "markers"}
    assert set(small(cross_attention=False).heads) == {"genes", "markers"}
    assert set(small(genomics=False).heads) == {"markers"}
    assert not small(()).heads
    assert small(genomics=False).genes == ()
    for settings in ({"cross_attention": False}, {"genomics": False}):
        assert small(**settings).eval()(batch).markers["grade"].shape == (2, 3)


@pytest.mark.parametrize("cross_attention", [True, False])
def test_both_modalities_count(batch, cross_attention):
    model = small(cross_attention=cross_attention).eval()
    before = model(batch).markers["grade"]
    other_genes = model(replace(batch, genes=batch.genes.flip(0))).markers["grade"]
    other_images = model(replace(batch, voxels=batch.voxels.flip(2) * 1.5)).markers["grade"]
    assert (before - other_genes).abs().min() > 1e-5
    assert (before - other_images).abs().min() > 1e-5


def test_a_study_without_genes(batch):
    model = small()
    batch.genes[1] = float("nan")
    prediction = model.train()(batch)
    sum(logits.square().sum() for logits in prediction.markers.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.heads.parameters())


def test_activation_and_maps(batch):
    model = small()
    assert not model.train()(batch).maps
    prediction = model.eval()(batch)
    assert prediction.activation == "entmax15"
    assert prediction.maps["mri"].shape == (2, 1, 1, 1, 1)
    assert prediction.maps["genes"].shape == (2, len(GENES), 1, 1, 1)
    torch.testing.assert_close(prediction.maps["genes"].sum(1), torch.ones(2, 1, 1, 1))


def test_without_tasks_genes_are_not_asked_for(batch):
    prediction: Predictions = small(()).eval()(replace(batch, genes=None))
    assert not prediction.markers and prediction.seg is None


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        (None, "mdl_ca needs the genes of each study: give a gene table"),
        (torch.zeros(2, 5, 3), "67 genes with 3 assays each, got 5 x 3"),
    ],
)
def test_wrong_genes(batch, genes, message):
    with pytest.raises(ModelError, match=message) as caught:
        small().eval()(replace(batch, genes=genes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": (1, 2)}, "must name four dense blocks"),
        ({"sequences": ("t7",)}, "unknown sequence 't7'"),
        ({"sequences": ()}, "name at least one"),
        ({"graph_heads": 3}, "multiple of graph_heads"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ModelError, match=message):
        small(**settings)
