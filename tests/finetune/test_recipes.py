"""The presets of published systems: each parses, fits its model, and takes a step."""

import math
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.finetune.config import FinetuneConfig
from gliomoe.finetune.dataset import CropDataset
from gliomoe.finetune.freeze import freeze, train_mode
from gliomoe.finetune.inputs import check_options
from gliomoe.finetune.loop import FoldData, train_step
from gliomoe.finetune.losses import prevalence_weights
from gliomoe.finetune.optim import make_optimizer
from gliomoe.finetune.train import refitted
from gliomoe.launch.options import parse, read_preset
from gliomoe.models.model import Model
from gliomoe.models.recompute import set_recompute
from gliomoe.models.registry import create_model
from gliomoe.models.settings import parse_settings

SMALL: dict[str, dict[str, Any]] = {
    "magpie_mednext_l": {
        "patch_size": 4, "channels": (4, 12, 24), "blocks": (1, 1, 1), "expansion": (2, 2, 2),
        "decoder_blocks": (1, 1), "scales": 2, "msda_width": 16, "heads": 2, "points": 2,
        "depth": 2, "experts": 4, "expert_hidden": 16,
    },
    "mgmt_net": {
        "channels": (8, 8, 12, 16), "blocks": 1, "swin_width": 4, "swin_heads": (1, 1, 2, 2),
        "window": 3, "pooling_hidden": 8, "marker_hidden": 8,
    },
    "attention_unet": {"channels": (8, 16, 24), "grade_hidden": 16},
    "mts_unet": {
        "feature_size": 8, "heads": (1, 2, 2, 4), "window": 2, "tafe_width": 32, "cmd_channels": 2,
    },
    "mdl_ca": {
        "layers": (1, 2, 1, 1), "growth": 4, "stem_channels": 8, "width": 16, "node_width": 8,
        "graph_heads": 2, "attention_hidden": 8, "dense": (32, 16),
    },
}  # fmt: skip
"""Model → settings that make it small."""

RECIPES = ("magpie_20shot", "mgmt_net", "mts_unet", "attention_unet", "mdl_ca")
PARTS = {
    "magpie_20shot": {"dice", "ce", "routing"},
    "mgmt_net": {"dice", "ce", "idh", "1p19q", "tert"},
    "mts_unet": {"dice", "ce", "idh", "1p19q", "grade"},
    "attention_unet": {"dice", "ce", "grade"},
    "mdl_ca": {"grade"},
}


def recipe(name: str) -> FinetuneConfig:
    table, source = read_preset(name, "gliomoe.finetune")
    where = ["--data", "cases", "--out", "run", "--labels", "labels.csv"]
    return parse(FinetuneConfig, where, "gliomoe finetune", "", table, source)


def phantom(model: Model) -> StudyBatch:
    """Two heads of four sequences with a tumour of all labels that every model knows."""
    generator = torch.Generator().manual_seed(0)
    seg = torch.zeros(2, 16, 16, 16, dtype=torch.uint8)
    seg[:, 4:12, 4:12, 4:12] = 2
    seg[:, 6:10, 6:10, 6:10] = 3
    seg[:, 7:9, 7:9, 7:9] = 1
    genes = torch.rand(2, len(model.genes), 3, generator=generator).round() if model.genes else None
    return StudyBatch(
        voxels=0.1 + torch.rand(8, 1, 16, 16, 16, generator=generator),
        sequence=torch.arange(4).repeat(2),
        study=torch.arange(2).repeat_interleave(4),
        spacing=torch.full((2, 3), 3.0),
        seg=seg,
        targets={
            "seg": torch.ones(2),
            "idh": torch.tensor([0.0, 1.0]),
            "1p19q": torch.tensor([math.nan, 1.0]),
            "tert": torch.tensor([1.0, math.nan]),
            "grade": torch.tensor([2.0, 4.0]),
        },
        keys=("a", "b"),
        genes=genes,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_its_model(name):
    config = recipe(name)
    assert config.model in SMALL
    with torch.device("meta"):
        model = create_model(config.model, config.tasks, **parse_settings(config.arch.set))
    check_options(model, config)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_what_one_must_know(name):
    text = (Path(str(files("gliomoe.finetune"))) / f"configs/{name}.toml").read_text("utf-8")
    for word in ("Paper ", "Hardware ", "Time ", "Data ", f"Command   gliomoe finetune {name} "):
        assert f"# {word}" in text, word


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("magpie")])
def test_markers_of_heads_of_their_own_stay_as_trained(name):
    config = recipe(name)
    assert config.refit and config.markers
    model = create_model(config.model, config.tasks, **SMALL[config.model])
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    prepared: Any = None  # a run that leaves them does not look at its cases
    assert not refitted(model, config, prepared, 0)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_a_step(name):
    config = recipe(name)
    config = replace(config, train=replace(config.train, precision="fp32"))
    torch.manual_seed(0)
    settings = {**SMALL[config.model], **parse_settings(config.arch.set)}
    model = create_model(config.model, config.tasks, **settings)
    freeze(model, config.freeze, config.train_blocks, config.lora)
    set_recompute(model, config.train.recompute)
    train_mode(model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    weights = {task: prevalence_weights({}, task) for task in config.markers}
    crops: Any = CropDataset.__new__(CropDataset)  # a step does not look at it
    data = FoldData(0, crops, [], weights)
    optimizer = make_optimizer(model, config.optim)
    parts = train_step(model, optimizer, phantom(model), data, config, 0)
    assert set(parts) == {*PARTS[name], "total"}
    assert all(math.isfinite(value) for value in parts.values())
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert {n.split(".")[0] for n in moved} == {"encoder", "heads"}
    if name == "mgmt_net":  # the only system with deep supervision
        assert {"heads.seg.deep.0.weight", "heads.seg.deep.1.weight"} <= moved
