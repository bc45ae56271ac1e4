"""A tiny labelled cohort and a preset of two steps, as the tests of fine-tuning have them."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TINY = """
folds = 2
only_folds = [0]
tasks = ["seg", "idh"]

[arch]
patch_size = 4
spacing = 3.0

[crop]
size = [16, 16, 16]

[train]
epochs = 1
steps_per_epoch = 2
precision = "fp32"

[optim]
name = "adamw"
lr = 3e-3

[artefacts]
bias_field = 0.0
kspace_noise = 0.0
spike = 0.0
"""

_spec = importlib.util.spec_from_file_location("balls", ROOT / "tests/finetune/conftest.py")
_balls = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_balls)
ball_shards, write_labels = _balls.ball_shards, _balls.write_labels


class Balls:
    """Training shards, test shards, label tables and the preset."""

    def __init__(self, folder, build, write):
        self.folder = folder
        self.train, self.test = build(range(8)), build(range(20, 25))
        self.labels = write(folder / "labels.tsv", range(8))
        self.test_labels = write(folder / "test.tsv", range(20, 25))
        self.preset = folder / "tiny.toml"
        self.preset.write_text(TINY, "utf-8")

    @property
    def options(self):
        """Options that every study shares."""
        return [
            "--data", str(self.train), "--labels", str(self.labels), "--test", f"A={self.test}",
            "--test_labels", f"A={self.test_labels}", "--finetune", str(self.preset),
        ]  # fmt: skip


@pytest.fixture(scope="session")
def balls(tmp_path_factory, ball_shards, write_labels):
    return Balls(tmp_path_factory.mktemp("cohort"), ball_shards, write_labels)
