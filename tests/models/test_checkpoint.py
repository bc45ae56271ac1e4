"""Checkpoint folders: written whole, read back bit for bit, refused when anything is wrong."""

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gliomoe.models import create_model, load_pretrained
from gliomoe.models.card import model_card
from gliomoe.models.checkpoint import (
    CONFIG,
    WEIGHTS,
    load_checkpoint,
    load_encoder,
    read_config,
    save_checkpoint,
    verify_files,
)
from gliomoe.models.errors import CheckpointError
from gliomoe.models.model import TASKS, Model
from gliomoe.models.stem import OTHER, SEQUENCES

FACTS = {"training": {"steps": 3}, "preprocessing": {"spacing": 1.0}, "card": "# card\n"}


@pytest.fixture
def model(make_tiny) -> Model:
    return make_tiny(("seg", "idh"))


@pytest.fixture
def folder(tmp_path, model) -> Path:
    save_checkpoint(tmp_path / "ck", model, **FACTS, sequences=SEQUENCES, fingerprints=b"abc")
    return tmp_path / "ck"


def rewrite(folder: Path, change) -> None:
    """Change the tensors of a checkpoint and make size and sha256 fit again."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text())
    content = (folder / WEIGHTS).read_bytes()
    config["files"][WEIGHTS] = {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (folder / CONFIG).write_text(json.dumps(config))


def refused(call) -> str:
    """The message of the CheckpointError that a call raises, one line."""
    with pytest.raises(CheckpointError) as caught:
        call()
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_folder_holds_what_was_said(folder):
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
        "pretraining_fingerprints.bin",
    }
    config = read_config(folder)
    assert config["format_version"] == 1
    assert config["sequences"] == list(SEQUENCES)
    assert config["training"] == {"steps": 3}
    for name, facts in config["files"].items():
        content = (folder / name).read_bytes()
        assert facts == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert (folder / "pretraining_fingerprints.bin").read_bytes() == b"abc"


def test_saved_and_loaded_is_bit_equal(folder, model, make_batch):
    loaded = load_checkpoint(folder)
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    batch = make_batch()
    assert torch.equal(model(batch).seg, loaded(batch).seg)
    assert torch.equal(model(batch).markers["idh"], loaded(batch).markers["idh"])


def test_loading_draws_no_random_numbers_and_weights_can_be_trained(folder):
    state = torch.get_rng_state()
    loaded = load_checkpoint(folder)
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        for parameter in loaded.parameters():
            assert parameter.requires_grad
            parameter += 1
    verify_files(folder, read_config(folder))


def test_saving_again(folder, model):
    before = (folder / CONFIG).stat().st_mtime_ns
    save_checkpoint(folder, model, **FACTS, sequences=SEQUENCES, fingerprints=b"abc")
    assert (folder / CONFIG).stat().st_mtime_ns == before
    message = refused(lambda: save_checkpoint(folder, model, **FACTS, sequences=["t1"]))
    assert str(folder) in message
    assert read_config(folder)["sequences"] == list(SEQUENCES)
    assert [path.name for path in folder.parent.iterdir()] == ["ck"]


def test_a_failed_save_leaves_nothing(tmp_path, model):
    with pytest.raises(TypeError):
        save_checkpoint(
            tmp_path / "ck",
            model,
            training={"x": object()},
            preprocessing={},
            sequences=[],
            card="",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [WEIGHTS, "README.md", "pretraining_fingerprints.bin"])
def test_damage_is_named(folder, name):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert f"{name}: damaged, its sha256" in refused(lambda: load_checkpoint(folder))
    path.write_bytes(content[:-1])
    assert f"{name}: damaged, its size" in refused(lambda: load_checkpoint(folder))
    path.unlink()
    assert f"{name}: missing" in refused(lambda: load_checkpoint(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["encoder.norm.weight"].fill_(float("nan")), "encoder.norm.weight has values"),
        (lambda t: t.pop("encoder.norm.bias"), "tensors are missing: encoder.norm.bias"),
        (lambda t: t.update({"encoder.norm.bias": torch.zeros(3)}), "encoder.norm.bias is [3]"),
        (lambda t: t.update({"surplus": torch.zeros(3)}), "without a place: surplus"),
    ],
)
def test_tensors_that_do_not_fit(folder, change, message):
    rewrite(folder, change)
    assert message in refused(lambda: load_checkpoint(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "format version None"),
        ('{"format_version": 9}', "format version 9"),
        ('{"format_version": 1}', "'model' is missing"),
    ],
)
def test_configurations_that_are_none(folder, content, message):
    (folder / CONFIG).write_text(content)
    assert message in refused(lambda: load_checkpoint(folder))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "config.json", ""])
def test_file_names_stay_in_the_folder(folder, name):
    config = json.loads((folder / CONFIG).read_text())
    config["files"][name] = config["files"]["README.md"]
    (folder / CONFIG).write_text(json.dumps(config))
    assert "is not valid" in refused(lambda: read_config(folder))


def test_a_model_of_another_program(folder):
    config = json.loads((folder / CONFIG).read_text())
    config["model"]["name"] = "resnet"
    (folder / CONFIG).write_text(json.dumps(config))
    assert "cannot build" in refused(lambda: load_checkpoint(folder))


def test_no_checkpoint(tmp_path):
    assert "no config.json" in refused(lambda: load_checkpoint(tmp_path))


def test_encoder_is_taken_over_and_heads_are_new(folder, model, make_tiny, caplog):
    target = make_tiny(TASKS)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    with caplog.at_level(logging.INFO):
        report = load_encoder(target, folder)
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, target.encoder.state_dict()[name])
    assert all(name.startswith("encoder.") for name in report.loaded)
    assert report.new and all(name.startswith("heads.") for name in report.new)
    assert report.left_out and all(name.startswith("heads.") for name in report.left_out)
    assert "new: heads.seg (" in caplog.text and "left out: heads.markers (" in caplog.text


def test_an_encoder_that_does_not_fit(folder, make_tiny):
    other = make_tiny(width=36, heads=3)
    message = refused(lambda: load_encoder(other, folder))
    whole, same = len(other.encoder.state_dict()), 0
    for name, tensor in make_tiny().encoder.state_dict().items():
        same += tensor.shape == other.encoder.state_dict()[name].shape
    assert f"{same} of the model's {whole} tensors fit gliomoe_tiny; " in message
    assert f"{whole - same} do not fit the model: registers is [4, 24]" in message
    report = load_encoder(other, folder, allow_partial=True)
    assert "blocks.0.attention.qkv.weight" in " ".join(report.new)
    assert set(report.left_out) & set(report.new)
    rewrite(folder, lambda tensors: tensors.pop("encoder.norm.bias"))
    assert "encoder.norm.bias" in load_encoder(make_tiny(), folder, allow_partial=True).new
    assert "missing: norm.bias" in refused(lambda: load_encoder(make_tiny(), folder))


def test_sequences_not_trained_on_act_as_other(tmp_path, model, make_batch):
    with torch.no_grad():
        model.encoder.stem.fusion.by_sequence[OTHER] = 1.5
    save_checkpoint(tmp_path / "ck", model, **FACTS, sequences=["t1", "t2"])
    loaded = load_checkpoint(tmp_path / "ck")
    t1, swi, other = (make_batch([(0, SEQUENCES.index(name))]) for name in ("t1", "swi", "other"))
    assert torch.equal(model(t1).seg, loaded(t1).seg)
    assert torch.equal(loaded(swi).seg, loaded(other).seg)
    assert not torch.equal(model(swi).seg, model(other).seg)
    again = replace(swi, sequence=torch.tensor([0, OTHER]))
    assert torch.equal(loaded(swi).seg, loaded(again).seg)


def test_load_pretrained_keeps_the_settings(folder, model, make_batch):
    fresh = load_pretrained(folder, ("tert",))
    assert fresh.config["overrides"] == model.config["overrides"]
    assert fresh.tasks == ("tert",)
    batch = make_batch()
    assert torch.equal(model.encoder(batch).tokens, fresh.encoder(batch).tokens)
    assert load_pretrained(folder, fusion="mean").encoder.config.fusion == "mean"


def test_card_states_what_it_must():
    text = model_card(
        "gliomoe-tiny",
        create_model("gliomoe_tiny"),
        training={"steps": 10},
        preprocessing={"spacing": 3.0},
        sequences=["t1", "flair"],
        phantom=True,
    )
    front, body = text.split("---\n")[1:]
    assert 'license: "apache-2.0"' in front
    assert "no clinical evidence" in body
    assert "- steps: 10" in body and "t1, flair" in body
