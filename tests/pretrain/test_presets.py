"""Presets: each builds and says what it is for; MAGPIE's has the losses of its paper."""

import math
from importlib.resources import files

import pytest
import torch
import torch.nn.functional as F

from gliomoe.launch.options import parse, read_preset
from gliomoe.models.registry import create_model
from gliomoe.pretrain.build import build, open_data
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine.schedule import learning_rate
from gliomoe.pretrain.objectives.decoder import pair_patches
from gliomoe.pretrain.samples.views import StudyViews, collate_pairs, make_views

PACKAGE = "gliomoe.pretrain"
PRESETS = sorted(
    entry.name.removesuffix(".toml")
    for entry in (files(PACKAGE) / "configs").iterdir()
    if entry.name.endswith(".toml")
)
SMALL = {
    "model.name": "magpie_mednext_s",
    "model.patch_size": "4",
    "model.decoder_width": "64",
    "model.decoder_depth": "1",
    "views.size": "16",
    "loss.reconstruction": "64",  # voxels of a patch
}


def load(preset, shards="nowhere", **more):
    table, source = read_preset(preset, PACKAGE)
    flags = {"data.train": str(shards), "run.out": "nowhere", **more}
    args = [text for key, value in flags.items() for text in (f"--{key}", value)]
    return parse(PretrainConfig, args, "gliomoe pretrain", table=table, source=source)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_says_what_it_is_for(name):
    with torch.device("meta"):
        _, objective = build(load(name))
    assert objective.encoder.width
    text = (files(PACKAGE) / f"configs/{name}.toml").read_text("utf-8")
    opening = text.partition("[model]")[0]
    assert all(line.startswith("#") for line in opening.splitlines() if line)
    assert "\n# Hardware: " in opening and "\n# Data: " in opening
    assert f"\n# Command: launch/pretrain.sh {name} --data.train SHARDS --run.out RUN" in opening


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("gliomoe_")])
def test_our_recipe(name):
    config = load(name)
    assert config.model.name == name and config.loss.objective == "mae+contrast"
    assert (config.optim.lr, config.optim.lr_end, config.optim.clip) == (1e-4, 1e-6, 1.0)
    assert 0 < config.optim.warmup < config.run.steps / 10
    assert (config.mask.ratio, config.mask.predicted) == (0.75, 1 / 3)
    assert config.engine.precision == "auto"


def test_magpie_in_numbers():
    config = load("magpie_parity")
    with torch.device("meta"):
        encoder = create_model(config.model.name).encoder
    assert config.loss.reconstruction == encoder.patch_size**3
    assert config.run.steps == 100 * 43_505 // config.optim.batch == 100 * 43_505 // (4 * 4)
    assert learning_rate(0, config.run.steps, config.optim) == 1e-4
    assert learning_rate(config.run.steps - 1, config.run.steps, config.optim) == 1e-6


def equation_7(module, features, views, side):
    """1/|M| Σ ‖x_i − x̂_i‖² over all masked patches of all sequences, patch by patch."""
    pairs = pair_patches(views.mask, views.complete)
    predicted = module.reconstruction.decoder(
        features, views.mask, pairs, views.complete.spacing
    ).double()
    by_place = {
        (int(volume), *position.tolist()): row
        for volume, position, row in zip(pairs.volume, pairs.position, predicted, strict=True)
    }
    total, patches = 0.0, 0
    for volume, study in enumerate(views.complete.study.tolist()):
        for d, h, w in views.mask.masked[study].nonzero().tolist():
            image = views.complete.voxels[volume, 0].double()
            true = image[d * side :, h * side :, w * side :][:side, :side, :side]
            made = by_place.pop((volume, d, h, w)).view(side, side, side)
            if true.any():
                total += float(((true - made) ** 2).sum())
                patches += 1
    assert not by_place  # what is predicted was masked
    return total / patches


def equation_8(module, features, temperature):
    """Mean over i of −log exp(z_i·z_j/τ) / Σ_{k≠i} exp(z_i·z_k/τ)."""
    z = F.normalize(module.contrast.projector(features.pooled).double(), dim=1)
    rows, total = len(z), 0.0
    for i in range(rows):
        j = (i + rows // 2) % rows
        below = sum(math.exp(z[i] @ z[k] / temperature) for k in range(rows) if k != i)
        total -= math.log(math.exp(z[i] @ z[j] / temperature) / below)
    return total / rows


def routing(features):
    """Mean over the layers of E · Σ_e (share of choices of e) · (mean p(e))."""
    layers = []
    for layer in features.routing:
        probabilities = layer.probabilities.double()
        experts = probabilities.shape[1]
        shares = [(layer.choice == e).double().mean() for e in range(experts)]
        means = [probabilities[:, e].mean() for e in range(experts)]
        layers.append(experts * sum(s * p for s, p in zip(shares, means, strict=True)))
    return float(sum(layers) / len(layers))


def test_parity_is_equations_7_to_9(shards):
    config = load("magpie_parity", shards, **SMALL)
    data = StudyViews(open_data(config), config.views, config.augment, 4, 0)
    pairs = [data[n] for n in range(4)]
    assert len({pair.subject for pair in pairs}) < 4  # sessions of one subject, negatives too
    views = make_views(collate_pairs(pairs), 16, 4, config.mask)
    assert torch.equal(views.complete.sequence, views.visible.sequence)  # nothing is hidden
    torch.manual_seed(0)
    _, module = build(config)
    with torch.no_grad():
        features = module.encoder(views.visible, views.mask.keep)
        parts = module(views)
        expected = equation_7(module, features, views, 4)
        expected += 1.0 * equation_8(module, features, 0.1)
        expected += 0.01 * routing(features)
    assert parts["loss"].item() == pytest.approx(expected, rel=1e-5)
