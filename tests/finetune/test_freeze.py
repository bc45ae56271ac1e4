"""Depths by hand, what is frozen and stays so, and adapters that leave an ordinary network."""

import pytest
import torch

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.config import OptimConfig
from gliomoe.finetune.depth import block_names, parameter_depths
from gliomoe.finetune.freeze import freeze, train_mode
from gliomoe.finetune.lora import LoraConfig, LowRank, merge
from gliomoe.finetune.optim import make_optimizer
from gliomoe.models.model import Model
from gliomoe.models.registry import MODELS, create_model, list_models

SMALL = {
    "patch_size": 4, "width": 24, "depth": 3, "heads": 2, "hidden": 32, "experts": 2,
    "expert_hidden": 16, "stem_hidden": 16,
}  # fmt: skip
MGMT = {
    "channels": (8, 8, 12, 16), "blocks": 1, "swin_width": 4, "swin_heads": (1, 1, 2, 2),
    "window": 3, "pooling_hidden": 8, "marker_hidden": 8,
}  # fmt: skip
FAMILIES = {MODELS[name].family: name for name in reversed(list_models())}
LORA = LoraConfig(rank=2, alpha=6.0)


def tiny(**settings: int) -> Model:
    torch.manual_seed(0)
    return create_model("gliomoe_tiny", ("seg", "idh"), **{**SMALL, **settings})


def batch(seed: int = 0) -> StudyBatch:
    generator = torch.Generator().manual_seed(seed)
    return StudyBatch(
        voxels=torch.rand(4, 1, 16, 16, 16, generator=generator),
        sequence=torch.arange(4),
        study=torch.zeros(4, dtype=torch.int64),
        spacing=torch.full((1, 3), 3.0),
        keys=("s",),
    )


def step(model: Model) -> None:
    """One step on the sum of all outputs."""
    optimizer = make_optimizer(model, OptimConfig(name="adamw", lr=1e-2))
    predictions = model(batch())
    total = sum(logits.sum() for logits in predictions.markers.values())
    assert predictions.seg is not None
    (predictions.seg.mean() + total).backward()
    optimizer.step()


def test_depths_of_the_flagship_by_hand():
    depths = parameter_depths(tiny().encoder)
    expected = {
        "registers": 0,
        "stem.weight.base": 0,
        "blocks.0.attention.qkv.weight": 1,
        "blocks.2.feed_forward.down.weight": 3,
        "norm.weight": 3,  # behind the last block
        "detail.full.0.weight": 4,  # never pretrained, as new as the heads
    }
    assert {name: depths[name] for name in expected} == expected


def test_branches_side_by_side_are_equally_deep():
    assert block_names(create_model("mgmt_net", **MGMT).encoder) == [
        ["cnn.0", "swin.0"],
        ["cnn.1", "swin.1"],
        ["cnn.2", "swin.2"],
        ["swin.3"],
    ]


@pytest.mark.parametrize("name", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_has_blocks(name):
    with torch.device("meta"):
        encoder = create_model(name).encoder
    depths = parameter_depths(encoder)
    blocks = [block for row in block_names(encoder) for block in row]
    assert len(blocks) == len(set(blocks))
    assert set(depths.values()) >= set(range(1, len(block_names(encoder)) + 1))
    for stem in encoder.stem_names:
        assert any(n == stem or n.startswith(f"{stem}.") for n in depths), stem
        assert all(depths[n] == 0 for n in depths if n.split(".")[0] == stem)


@pytest.mark.parametrize("how", ["encoder", "partial", "lora"])
def test_what_is_frozen_has_no_graph(how):
    model = tiny()
    freeze(model, how, 0, LORA)
    features = model.encoder(batch())
    assert features.tokens.requires_grad is (how == "lora")
    assert features.pyramid[0].requires_grad is (how != "encoder")  # the detail path is new


@pytest.mark.parametrize(("how", "changes"), [("encoder", False), ("none", True)])
def test_frozen_batch_norm_keeps_its_statistics(how, changes):
    torch.manual_seed(0)
    model = create_model("mgmt_net", ("seg", "idh"), **MGMT)
    freeze(model, how, 0, LORA)
    train_mode(model)
    before = {name: buffer.clone() for name, buffer in model.encoder.named_buffers()}
    twice = [model.encoder(batch()).pooled for _ in range(2)]
    moved = [n for n, buffer in model.encoder.named_buffers() if not torch.equal(buffer, before[n])]
    assert bool(moved) is changes
    assert torch.equal(*twice) is not changes  # frozen parts draw no dropout
    assert model.heads.training and model.training


def test_partial_leaves_the_last_blocks():
    model = tiny()
    freeze(model, "partial", 2, LORA)
    trained = {n.split(".")[0] for n, p in model.encoder.named_parameters() if p.requires_grad}
    assert trained == {"blocks", "norm", "detail"}
    assert [any(p.requires_grad for p in b.parameters()) for b in model.encoder.blocks] == [
        False,
        True,
        True,
    ]


def test_low_rank_by_hand():
    adapted = LowRank(torch.zeros(2, 3), LoraConfig(rank=1, alpha=3.0))
    with torch.no_grad():
        adapted.down.copy_(torch.tensor([[1.0, 2.0, 0.0]]))
        adapted.up.copy_(torch.tensor([[1.0], [-1.0]]))
    expected = torch.tensor([[4.0, 7.0, 1.0], [-2.0, -5.0, 1.0]])
    assert torch.equal(adapted(torch.ones(2, 3)), expected)
    assert LowRank(torch.zeros(4, 2, 3), LORA)(torch.ones(4, 2, 3)).eq(1).all()


@torch.no_grad()
def outputs(model: Model) -> torch.Tensor:
    predictions = model.eval()(batch(1))
    return torch.cat([predictions.seg.flatten(), predictions.markers["idh"].flatten()])


def test_adapters_start_at_nothing_learn_and_merge():
    model, plain = tiny(), tiny()
    freeze(model, "lora", 0, LORA)
    assert torch.equal(outputs(model), outputs(plain))
    model.train()
    step(model)
    trained = outputs(model)
    assert not torch.equal(trained, outputs(plain))
    merge(model)
    assert torch.equal(outputs(model), trained)
    ours, theirs = model.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys()
    changed = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    blocks = {name.split(".", 3)[3] for name in changed if name.startswith("encoder.blocks.")}
    assert blocks == {
        "attention.qkv.weight", "attention.out.weight", "feed_forward.gate_up.weight",
        "feed_forward.down.weight", "feed_forward.experts.gate_up", "feed_forward.experts.down",
    }  # fmt: skip
    assert all(n.startswith(("encoder.blocks.", "encoder.detail.", "heads.")) for n in changed)
    difference = (
        ours["encoder.blocks.0.attention.qkv.weight"]
        - theirs["encoder.blocks.0.attention.qkv.weight"]
    )
    assert torch.linalg.matrix_rank(difference, tol=1e-5) == LORA.rank


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("attention_unet", "lora", "blocks of attention_unet have no linear layers"),
        ("mdl_ca", "lora", "blocks of mdl_ca have no linear layers"),
        ("mdl_ca", "partial", "--train_blocks 5: the encoder of mdl_ca has 4 blocks"),
    ],
)
def test_what_cannot_be_frozen_so(name, how, message):
    with torch.device("meta"):
        model = create_model(name)
    with pytest.raises(UsageError, match=message):
        freeze(model, how, 5, LORA)


def groups_of(model: Model, config: OptimConfig) -> dict[str, tuple[float, float]]:
    """Parameter → (rate, weight decay); every trainable parameter must be there once."""
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    found = {
        names.pop(id(p)): (group["lr"], group["weight_decay"])
        for group in make_optimizer(model, config).param_groups
        for p in group["params"]
    }
    assert not names
    return found


def test_rates_fall_with_depth_by_hand():
    config = OptimConfig("adamw", lr=1.0, encoder_lr=0.5, layer_decay=0.1, weight_decay=0.01)
    found = groups_of(tiny(), config)
    expected = {
        "encoder.registers": (0.5 * 1e-4, 0.01),
        "encoder.stem.weight.by_sequence": (0.5 * 1e-4, 0.01),
        "encoder.stem.bias.by_sequence": (0.5 * 1e-4, 0.0),
        "encoder.blocks.0.attention.out.weight": (0.5 * 1e-3, 0.01),
        "encoder.blocks.0.attention.out.bias": (0.5 * 1e-3, 0.0),
        "encoder.blocks.1.feed_forward.experts.down": (0.5 * 1e-2, 0.01),
        "encoder.blocks.2.attention_norm.weight": (0.5 * 1e-1, 0.0),
        "encoder.norm.weight": (0.5 * 1e-1, 0.0),
        "encoder.detail.lower.0.0.0.weight": (1.0, 0.01),  # pretraining never trains it
        "heads.seg.logits.weight": (1.0, 0.01),
        "heads.seg.logits.bias": (1.0, 0.0),
    }
    for name, group in expected.items():
        assert found[name] == pytest.approx(group), name


def test_sgd_decays_all_weights_and_frozen_ones_are_left_out():
    model = tiny()
    freeze(model, "encoder", 0, LORA)
    found = groups_of(model, OptimConfig("sgd", lr=1.0, weight_decay=0.01))
    assert set(found.values()) == {(1.0, 0.01)}
    assert all(name.startswith("heads.") for name in found)
