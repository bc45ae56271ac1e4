"""Properties that every registered model has, tried on a small one of each family."""

from dataclasses import replace

import pytest
import torch

from gliomoe.data_shards.sequences import SEQUENCES as DATA_SEQUENCES
from gliomoe.models import create_model, list_models
from gliomoe.models.checkpoint import load_checkpoint, save_checkpoint
from gliomoe.models.errors import ModelError
from gliomoe.models.model import TASKS
from gliomoe.models.moe.balance import routing_loss
from gliomoe.models.registry import parameter_counts
from gliomoe.models.stem import OTHER, SEQUENCES
from gliomoe.models.tissue import tissue_positions


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


def test_the_sequences_are_those_of_the_data():
    assert SEQUENCES == DATA_SEQUENCES


@pytest.mark.parametrize(
    ("name", "millions"), [("tiny", 5), ("small", 30), ("base", 120), ("large", 300)]
)
def test_sizes(name, millions):
    with torch.device("meta"):
        total, active = parameter_counts(create_model(f"gliomoe_{name}", TASKS))
    assert 0.8 * millions < total / 1e6 < 1.2 * millions
    assert active < 0.75 * total


def test_shapes(make_model, make_batch):
    model, batch = make_model(TASKS), make_batch()
    prediction = model(batch)
    features = prediction.features
    assert prediction.seg.shape == (2, 3, 16, 12, 20)
    assert {task: tuple(x.shape) for task, x in prediction.markers.items()} == {
        "idh": (2, 1),
        "1p19q": (2, 1),
        "tert": (2, 1),
        "grade": (2, 3),
    }
    assert features.pooled.shape == (2, model.encoder.width)
    assert [level.shape[1] for level in features.pyramid] == list(model.encoder.channels)
    assert [level.shape[2] for level in features.pyramid] == [16, 8, 4]
    assert len(features.tokens) == len(features.study) == len(features.position)
    assert features.study.diff().min() >= 0
    assert features.position.min() >= 0


def test_order_of_volumes_means_nothing(make_model, make_batch):
    model, batch = make_model(TASKS), make_batch([(0, 1, 2, 3), (2,)])
    order = torch.tensor([2, 0, 3, 1, 4])
    shuffled = replace(batch, voxels=batch.voxels[order], sequence=batch.sequence[order])
    a, b = model(batch), model(shuffled)
    close(a.seg, b.seg)
    close(a.features.tokens, b.features.tokens)
    close(a.markers["grade"], b.markers["grade"])


def test_studies_do_not_touch_each_other(make_model, make_batch):
    model, batch = make_model(TASKS), make_batch([(0, 1, 2), (3,)])
    both = model(batch)
    for study in (0, 1):
        volumes = batch.study == study
        alone = model(
            replace(
                batch,
                voxels=batch.voxels[volumes],
                sequence=batch.sequence[volumes],
                study=torch.zeros(int(volumes.sum()), dtype=torch.int64),
                spacing=batch.spacing[study : study + 1],
            )
        )
        close(both.seg[study], alone.seg[0])
        close(both.features.pooled[study], alone.features.pooled[0])
        close(both.markers["idh"][study], alone.markers["idh"][0])


def test_exchanged_contents_change_the_features(make_model, make_batch):
    encoder, batch = make_model().encoder, make_batch([(0, 3)])
    exchanged = replace(batch, voxels=batch.voxels.flip(0))
    a, b = encoder(batch), encoder(exchanged)
    assert (a.tokens - b.tokens).abs().mean() > 0.01 * a.tokens.abs().mean()
    assert (a.pyramid[0] - b.pyramid[0]).abs().mean() > 0.01 * a.pyramid[0].abs().mean()


def test_a_volume_given_twice_counts_once(make_model, make_batch):
    encoder, batch = make_model().encoder, make_batch([(1,)])
    twice = replace(
        batch,
        voxels=batch.voxels.repeat(2, 1, 1, 1, 1),
        sequence=batch.sequence.repeat(2),
        study=batch.study.repeat(2),
    )
    close(encoder(batch).tokens, encoder(twice).tokens)


def test_every_set_of_sequences_runs(make_model, make_batch):
    model = make_model(TASKS)
    for present in [(9,), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)]:
        assert model(make_batch([present])).seg.isfinite().all()


def test_a_number_outside_the_table_is_other(make_model, make_batch):
    encoder, batch = make_model().encoder, make_batch([(OTHER,)])
    unknown = replace(batch, sequence=torch.tensor([77]))
    assert torch.equal(encoder(batch).tokens, encoder(unknown).tokens)


@pytest.mark.parametrize("sides", [(16, 16, 16), (13, 7, 18), (3, 5, 1)])
def test_any_sides(make_model, make_batch, sides):
    model, batch = make_model(TASKS), make_batch([(0, 2)], sides)
    batch = replace(batch, voxels=batch.voxels + 0.1)
    prediction = model(batch)
    assert prediction.seg.shape[2:] == sides
    assert prediction.features.pyramid[0].shape[2:] == sides
    assert prediction.seg.isfinite().all()


def test_kept_tokens_are_the_only_ones_seen(make_model, make_batch):
    encoder, batch = make_model().encoder, make_batch()
    size = encoder.patch_size
    tissue = tissue_positions(batch, size)
    draw = torch.rand(tissue.shape, generator=torch.Generator().manual_seed(1))
    keep = tissue & (draw < 0.4)
    voxels = keep
    for axis in (1, 2, 3):
        voxels = voxels.repeat_interleave(size, axis)
    d, h, w = batch.voxels.shape[2:]
    blanked = batch.voxels * voxels[batch.study, None, :d, :h, :w]
    some = encoder(batch, keep)
    same = encoder(replace(batch, voxels=blanked))
    assert torch.equal(some.position, same.position)
    assert not some.pyramid
    close(some.tokens, same.tokens)
    close(some.pooled, same.pooled)


def test_all_tissue_kept_equals_dense(make_model, make_batch):
    encoder, batch = make_model().encoder, make_batch()
    dense = encoder(batch)
    kept = encoder(batch, tissue_positions(batch, encoder.patch_size))
    assert torch.equal(dense.tokens, kept.tokens)


def test_air_has_features_zero_and_no_token(make_model, make_batch):
    features = make_model().encoder(make_batch([(0,)], (16, 16, 16)))
    corner = features.pyramid[-1][0, :, 0, 0, 0]
    assert not corner.any()
    assert not (features.position == 0).all(1).any()


def test_an_empty_study_beside_a_full_one(make_model, make_batch):
    model, batch = make_model(TASKS), make_batch([(0, 1), (0,)])
    batch.voxels[2] = 0
    prediction = model(batch)
    loss = prediction.seg.square().mean() + prediction.markers["grade"].square().mean()
    loss.backward()
    assert not prediction.features.pooled[1].any()
    assert prediction.seg.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_gradient_reaches_every_parameter(make_model, make_batch):
    model = make_model(TASKS)
    prediction = model(make_batch([range(len(SEQUENCES)), (0, 1)]))
    loss = prediction.seg.square().mean() + routing_loss(prediction.features.routing)
    for logits in prediction.markers.values():
        loss = loss + logits.square().mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_bfloat16(make_model, make_batch):
    model, batch = make_model(TASKS), make_batch()
    full = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch)
        loss = half.seg.float().square().mean() + half.markers["idh"].float().square().mean()
    loss.backward()
    assert (full.seg - half.seg).abs().mean() < 0.1 * full.seg.std()
    for layer in half.features.routing:
        assert layer.probabilities.dtype == layer.logits.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_routing_covers_tokens_and_registers(make_model, make_batch):
    features = make_model().encoder(make_batch())
    for layer in features.routing:
        patches = layer.position[:, 0] >= 0
        assert torch.equal(layer.position[patches], features.position)
        assert torch.equal(layer.study[patches], features.study)
        close(layer.probabilities.sum(1), torch.ones(len(layer.study)))


def test_one_expert_is_dense(make_model, make_batch):
    model = make_model(experts=1)
    assert model.encoder(make_batch()).routing == []
    assert parameter_counts(model)[0] == parameter_counts(model)[1]
    assert float(routing_loss([])) == 0


def test_spacing_counts_in_millimetres(make_model, make_batch):
    encoder = make_model().encoder
    near, far = encoder(make_batch(spacing=1.0)), encoder(make_batch(spacing=4.0))
    assert (near.tokens - far.tokens).abs().max() > 1e-3


def test_configuration_rebuilds_the_model(make_model):
    model = make_model(("idh", "seg"))
    config = model.config
    again = create_model(config["name"], config["tasks"], **config["overrides"])
    assert again.config == config
    shapes = {name: t.shape for name, t in model.state_dict().items()}
    assert {name: t.shape for name, t in again.state_dict().items()} == shapes


def test_saved_and_loaded_is_bit_equal(make_model, make_batch, tmp_path):
    model, batch = make_model(TASKS), make_batch()
    facts = {"training": {}, "preprocessing": {}, "sequences": SEQUENCES, "card": ""}
    save_checkpoint(tmp_path / "ck", model, **facts)
    loaded = load_checkpoint(tmp_path / "ck")
    assert loaded.config == model.config
    assert torch.equal(model(batch).seg, loaded(batch).seg)


def test_the_same_seed_gives_the_same_weights(make_model):
    a, b = make_model().state_dict(), make_model().state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_model("gliomoe_tyni"), "perhaps gliomoe_tiny"),
        (lambda: create_model("gliomoe_tiny", ("idg",)), "unknown task 'idg'"),
        (lambda: create_model("gliomoe_tiny", widht=3), "unknown setting 'widht'"),
        (lambda: create_model("gliomoe_tiny", patch_size=5), "patch_size 5"),
        (lambda: create_model("gliomoe_tiny", top_k=9), "top_k 9"),
        (lambda: create_model("gliomoe_tiny", width=100), "width 100"),
        (lambda: create_model("gliomoe_tiny", fusion="sum"), "unknown fusion 'sum'"),
    ],
)
def test_wrong_calls_say_what_is_known(call, message):
    with pytest.raises(ModelError, match=message) as caught:
        call()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_list_models():
    assert list_models("gliomoe_t*") == ["gliomoe_tiny"]
