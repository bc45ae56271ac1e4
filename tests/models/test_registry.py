"""Properties that every registered model has, tried on a small one of each family."""

from dataclasses import replace

import pytest
import torch

from gliomoe.data_shards.sequences import SEQUENCES as DATA_SEQUENCES
from gliomoe.models import create_model, list_models
from gliomoe.models.checkpoint import load_checkpoint, save_checkpoint
from gliomoe.models.errors import ModelError
from gliomoe.models.features import Predictions
from gliomoe.models.heads.markers import MARKERS
from gliomoe.models.model import Model
from gliomoe.models.moe.balance import routing_loss
from gliomoe.models.recompute import Recomputable, set_recompute
from gliomoe.models.stem import SEQUENCES
from gliomoe.models.tissue import tissue_positions


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


def some_loss(prediction: Predictions) -> torch.Tensor:
    """A loss that every output takes part in."""
    loss = prediction.features.pooled.square().mean()
    loss = loss + routing_loss(prediction.features.routing)
    outputs = [*prediction.markers.values(), *prediction.deep, prediction.seg]
    for output in outputs:
        if output is not None:
            loss = loss + output.float().square().mean()
    return loss


def gradients(model: Model, batch) -> dict[str, torch.Tensor]:
    """Gradient of `some_loss` by every parameter, with the same draws of dropout each time."""
    model.zero_grad()
    torch.manual_seed(1)
    some_loss(model(batch)).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_the_sequences_are_those_of_the_data():
    assert SEQUENCES == DATA_SEQUENCES


def test_shapes(case):
    model, batch = case.model().eval(), case.batch()
    prediction = model(batch)
    features, encoder = prediction.features, model.encoder
    if "seg" in case.tasks:
        assert prediction.seg.shape == (2, 3, 16, 12, 20)
    assert {task: x.shape for task, x in prediction.markers.items()} == {
        task: (2, MARKERS[task]) for task in case.tasks if task != "seg"
    }
    assert features.pooled.shape == (2, encoder.width)
    assert [level.shape[1] for level in features.pyramid] == list(encoder.channels)
    for i, level in enumerate(features.pyramid):
        assert level.shape[2:] == tuple(-(-side // 2**i) for side in (16, 12, 20))
    assert features.tokens.shape == (len(features.study), encoder.width)
    assert features.position.shape == (len(features.study), 3)
    assert features.study.diff().min() >= 0
    assert features.position.min() >= 0
    assert not prediction.deep
    for name, attention in prediction.maps.items():
        assert attention.shape[0] == 2, name
        assert attention.min() >= 0, name
        assert attention.max() <= 1, name


def test_each_task_alone(case):
    for task in case.tasks:
        prediction = case.model((task,)).eval()(case.batch())
        assert (prediction.seg is not None) == (task == "seg")
        assert list(prediction.markers) == [task] * (task != "seg")


@pytest.mark.parametrize("studies", [1, 2])
def test_trains_on_few_studies(case, studies):
    model = case.model().train()
    batch = case.batch([(0, 1, 2, 3)] * studies)
    found = gradients(model, batch)
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_gradient_reaches_every_parameter(case):
    model = case.model().train()
    everything = [tuple(range(len(SEQUENCES))), (0, 1, 2, 3)]
    found = gradients(model, case.batch(everything, sides=(24, 24, 24)))
    for name, _ in model.named_parameters():
        assert name in found, f"{name} is not used"
        assert found[name].isfinite().all(), name
        assert found[name].any(), f"{name} has no gradient"


def test_studies_do_not_touch_each_other(case):
    model, batch = case.model().eval(), case.batch()
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
                genes=None if batch.genes is None else batch.genes[study : study + 1],
            )
        )
        close(both.features.pooled[study], alone.features.pooled[0])
        if both.seg is not None:
            close(both.seg[study], alone.seg[0], atol=1e-4)
        for task in both.markers:
            close(both.markers[task][study], alone.markers[task][0], atol=1e-4)


@pytest.mark.parametrize("sides", [(16, 16, 16), (13, 7, 18), (3, 5, 1)])
def test_any_sides(case, sides):
    model, batch = case.model().train(), case.batch(sides=sides)
    batch = replace(batch, voxels=batch.voxels + 0.1)
    prediction = model(batch)
    assert prediction.features.pyramid[0].shape[2:] == sides
    assert some_loss(prediction).isfinite()
    if prediction.seg is not None:
        assert prediction.seg.shape[2:] == sides


def test_kept_tokens_are_the_only_ones_seen(case):
    encoder, batch = case.bare.encoder.eval(), case.batch(sides=(32, 24, 40))
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
    assert len(some.tokens)
    assert not some.pyramid
    assert torch.equal(some.position, same.position)
    close(some.tokens, same.tokens)
    close(some.pooled, same.pooled)


def test_an_empty_study_beside_a_full_one(case):
    model, batch = case.model().train(), case.batch()
    batch.voxels[batch.study == 1] = 0
    prediction = model(batch)
    some_loss(prediction).backward()
    assert not prediction.features.pooled[1].any()
    assert some_loss(prediction).isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_bfloat16(case):
    model, batch = case.model().eval(), case.batch()
    full = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch)
    some_loss(half).backward()
    if full.seg is not None:
        assert (full.seg - half.seg).abs().mean() < 0.1 * full.seg.std()
    for task, logits in full.markers.items():
        assert (logits - half.markers[task]).abs().max() < 0.1 * (1 + logits.abs().max())
    for layer in half.features.routing:
        assert layer.probabilities.dtype == layer.logits.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_recomputed_activations_give_equal_gradients(case):
    model, batch = case.model().train(), case.batch()
    assert any(isinstance(part, Recomputable) for part in model.encoder.modules())
    kept = gradients(model, batch)
    again = case.model().train()
    set_recompute(again, True)
    recomputed = gradients(again, batch)
    assert kept.keys() == recomputed.keys()
    for name in kept:
        torch.testing.assert_close(kept[name], recomputed[name], atol=1e-6, rtol=1e-5, msg=name)
    for (name, a), (_, b) in zip(model.named_buffers(), again.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=f"{name} was counted twice")


def test_routing_says_what_its_tokens_are(case):
    model, batch = case.model().eval(), case.batch()
    for layer in model(batch).features.routing:
        number = len(layer.probabilities)
        assert len(layer.choice) == len(layer.logits) == number
        assert layer.study.shape == (number,)
        assert layer.position.shape == (number, 3)
        assert layer.position.max() * layer.patch_size < 20 + model.encoder.stride
        close(layer.probabilities.sum(1), torch.ones(number))


def test_configuration_rebuilds_the_model(case):
    model = case.model()
    config = model.config
    again = create_model(config["name"], config["tasks"], **config["overrides"])
    assert again.config == config
    shapes = {name: t.shape for name, t in model.state_dict().items()}
    assert {name: t.shape for name, t in again.state_dict().items()} == shapes


def test_saved_and_loaded_is_bit_equal(case, tmp_path):
    model, batch = case.model().eval(), case.batch()
    facts = {"training": {}, "preprocessing": {}, "sequences": SEQUENCES, "card": ""}
    save_checkpoint(tmp_path / "ck", model, **facts)
    loaded = load_checkpoint(tmp_path / "ck").eval()
    assert loaded.config == model.config
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    # Some CPUs round small products by where in memory they lie: what is said is close, not equal.
    a, b = model(batch), loaded(batch)
    torch.testing.assert_close(a.features.tokens, b.features.tokens)
    assert (a.seg is None) == (b.seg is None)
    if a.seg is not None:
        torch.testing.assert_close(a.seg, b.seg)
    torch.testing.assert_close(a.markers, b.markers)


def test_the_same_seed_gives_the_same_weights(case):
    a, b = case.model().state_dict(), case.model().state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", list_models())
def test_every_size_is_built_without_memory(name):
    with torch.device("meta"):
        model = create_model(name)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.encoder.stride % model.encoder.patch_size == 0


def test_a_missing_sequence_is_named(named_case):
    model = named_case.model().eval()
    *present, missing = model.encoder.sequences
    batch = named_case.batch([[SEQUENCES.index(sequence) for sequence in present]])
    with pytest.raises(ModelError, match=f"{named_case.name} needs .*s0 lacks {missing}") as caught:
        model(batch)
    assert "\n" not in str(caught.value)


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
