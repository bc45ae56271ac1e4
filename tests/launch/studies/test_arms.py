"""What is compared, as the options spell it."""

from pathlib import Path

import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.launch.studies.arms import Arm, finetune_options, read_arms
from gliomoe.launch.studies.config import StudyConfig


def config(*finetune):
    return StudyConfig(
        data=Path("cases"), test=("A=test",), out=Path("study"), finetune=finetune or ("smoke",)
    )


def test_settings_of_the_preset_the_study_and_the_arm_win_in_this_order(tmp_path):
    changes = tmp_path / "arms.toml"
    changes.write_text("[ours]\noptim.encoder_lr = 1e-4\ntrain.epochs = 7\n")
    arms = read_arms(["ours=checkpoint", "frozen=scratch:frozen"], changes)
    found = finetune_options(config("smoke", "train.epochs=5", "crop.size=[16,24,32]"), arms)
    ours, frozen = found["ours"], found["frozen"]
    assert (ours.from_, frozen.from_) == ("checkpoint", "scratch")
    assert (ours.freeze, frozen.freeze) == ("none", "encoder")
    assert (ours.train.epochs, frozen.train.epochs) == (7, 5)
    assert (ours.optim.encoder_lr, frozen.optim.encoder_lr) == (1e-4, None)
    assert ours.crop.size == frozen.crop.size == (16, 24, 32)
    assert ours.optim.name == frozen.optim.name == "adamw"  # of the preset


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scratch", "--arms scratch: write it as NAME=VALUE"),
        ("a/b=scratch", "write it as NAME=VALUE, the name of letters"),
        ("other=scratch", "--arms: other is there twice"),
    ],
)
def test_arms_that_cannot_be_read_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        read_arms(["other=scratch", text], None)


def test_settings_for_no_arm_are_refused(tmp_path):
    changes = tmp_path / "arms.toml"
    changes.write_text("[hours]\nfreeze = 'encoder'\n")
    with pytest.raises(UsageError, match="tables for hours, but there are ours"):
        read_arms(["ours=scratch"], changes)
    changes.write_text("freeze = 'encoder'\n")
    with pytest.raises(UsageError, match="freeze: give a table under a name"):
        read_arms(["ours=scratch"], changes)


@pytest.mark.parametrize(
    ("finetune", "settings", "message"),
    [
        (("smok",), {}, "smok: neither a preset nor a TOML file; presets: "),
        (("smoke", "seed=3"), {}, "--finetune seed=3: the study sets it"),
        (("smoke", "train.epoch=3"), {}, "unknown key train.epoch; perhaps train.epochs"),
        (("smoke",), {"shots": 3}, "arm one: shots is set by the study"),
        (("smoke",), {"freeze": "half"}, "arm one, then flags"),
    ],
)
def test_settings_that_do_not_fit_are_refused(finetune, settings, message):
    with pytest.raises(UsageError, match=message):
        finetune_options(config(*finetune), [Arm("one", "scratch", settings)])
