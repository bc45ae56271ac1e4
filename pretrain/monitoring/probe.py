"""The online probe: how good the frozen features of an encoder in training are.

Notable facts:
- The last block works for the loss and forgets what that does not need: tokens of three depths are
  asked together, much as the linear probes of DINOv2 (Oquab et al. 2023) ask four blocks.
- A network with random weights does well already, so that the first row, before any step, is the
  one to compare with.
- Studies are encoded in boxes of the size of the views, whole, one box at a time: what the encoder
  is used to, and no more memory than a step takes.
- Nothing of it touches the training: no gradients, no random numbers, every module's mode is put
  back.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gliomoe.data_shards.batch import StudySample, collate
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.format.dataset import join_infos, read_dataset
from gliomoe.data_shards.label_table import read_labels
from gliomoe.data_shards.labels import REGIONS
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.reading.sample import StoredStudy
from gliomoe.data_shards.storage.store import open_source
from gliomoe.models.encoders.encoder import Encoder
from gliomoe.models.tissue import tissue_positions
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.monitoring.asking import asked
from gliomoe.pretrain.monitoring.probe_figures import (
    StudyTokens,
    marker_figures,
    tumour_figures,
)

_HIGHEST_GRADE = 4
_DEPTHS = 3


@dataclass(frozen=True)
class ProbeSet:
    """Labelled studies for a probe."""

    shards: ShardSet
    numbers: tuple[int, ...]
    """Which of them are used."""
    subjects: tuple[str, ...]
    """The subject of each; its studies stay in one fold."""
    labels: dict[str, np.ndarray]
    """Marker → 0, 1 or NaN for each study."""

    @classmethod
    def open(cls, config: PretrainConfig) -> "ProbeSet":
        """The studies that `probe` asks for.

        Raises:
            UsageError: If there are too few of them, or they were preprocessed otherwise than the
                studies to train on.
            DataError: If a set is damaged or cannot be read.
        """
        settings, data = config.probe, config.data
        shards = ShardSet.open(*settings.data, storage=data.storage)
        trained = read_dataset(open_source(data.train[0], data.storage, data.allow_pipes))
        join_infos([data.train[0], settings.data[0]], [trained, shards.info])
        numbers = _labelled(shards, settings.studies)
        records = [shards.record(number) for number in numbers]
        subjects = tuple(record["subject"] for record in records)
        if len(set(subjects)) < settings.folds:
            raise UsageError(
                f"{', '.join(settings.data)}: {len(set(subjects))} labelled subjects cannot fill "
                f"probe.folds ({settings.folds}); give more or lower probe.folds"
            )
        labels = _markers([(r["key"], r.get("labels", {})) for r in records])
        return cls(shards, tuple(numbers), subjects, labels)


class Probe:
    """What is asked of an encoder, now and then.

    Args:
        config: The run's configuration.
        studies: Labelled studies.
        encoder: What is asked.
        precision: Of the run's arithmetic.
    """

    def __init__(self, config: PretrainConfig, studies: ProbeSet, encoder: Encoder, precision: str):
        self._config, self._studies, self._encoder = config, studies, encoder
        self._precision = precision
        names = sorted(set(studies.subjects))
        self._folds = [names.index(s) % config.probe.folds for s in studies.subjects]

    def due(self, step: int) -> bool:
        """Whether to ask after so many steps: at the start, the end and every so many studies."""
        if step in (0, self._config.run.steps):
            return True
        batch, every = self._config.optim.batch, self._config.probe.every
        return step * batch // every > (step - 1) * batch // every

    def run(self) -> dict[str, float]:
        """Figures by name; every rank calls it and gets the same."""
        rank, world = distributed.world()
        studies, encoder, folds = self._studies, self._encoder, self._config.probe.folds
        count = len(studies.numbers)
        # Experts on other ranks are reached by all ranks together: then each does all the work.
        together = self._config.engine.expert_parallel > 1
        own = range(count) if together else range(rank, count, world)
        width = len(asked_layers(encoder.depth)) * encoder.width
        pooled = torch.zeros(count, width, dtype=torch.float64)
        seen = []
        with asked(encoder, self._precision) as device:
            for i in own:
                tokens, tumour = self._encode(studies.shards.study(studies.numbers[i]), device)
                pooled[i] = tokens.double().mean(0)
                if tumour is not None:
                    seen.append(StudyTokens(tokens, tumour, self._folds[i]))
        figures = tumour_figures(seen, folds, width, device)
        pooled = distributed.add(pooled / world if together else pooled, device)
        return figures | marker_figures(pooled.numpy(), studies.labels, studies.subjects, folds)

    def _encode(self, study: StoredStudy, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Tokens [N, K · C] of all tissue, and the share of tumour of each, if it is known."""
        size = self._config.views.size
        parts = [
            encode_box(self._encoder, study.read(start, (size,) * 3), device)
            for start in tile(study.record["shape"], size)
        ]
        tokens = torch.cat([tokens for tokens, _ in parts])
        if not study.record["has_seg"]:
            return tokens, None
        return tokens, torch.cat([tumour for _, tumour in parts if tumour is not None])


def tile(shape: Sequence[int], size: int) -> Iterator[tuple[int, int, int]]:
    """First voxels of boxes side by side that cover a grid, as far beyond it on either side.

    Args:
        shape: Voxels along D, H, W.
        size: Side of a box.
    """
    firsts = []
    for length in shape:
        boxes = math.ceil(length / size)
        before = (boxes * size - length) // 2
        firsts.append([box * size - before for box in range(boxes)])
    yield from itertools.product(*firsts)  # type: ignore[misc]


def asked_layers(depth: int) -> list[int]:
    """Which of an encoder's layers are asked: the last, and those at one and two thirds."""
    return sorted({-(-depth * part // _DEPTHS) - 1 for part in range(1, _DEPTHS + 1)})


def encode_box(
    encoder: Encoder, sample: StudySample, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Tokens [N, K · C] float32 of the tissue of a box, and the share of tumour [N] of each.

    Those of the K `asked_layers` side by side, each normalised by itself.
    """
    batch = collate([sample]).to(device)
    features, layers = encoder.layers(batch, tissue_positions(batch, encoder.patch_size))
    chosen = [layers[index].float() for index in asked_layers(encoder.depth)]
    tokens = torch.cat([F.layer_norm(layer, layer.shape[1:]) for layer in chosen], 1).cpu()
    if sample.seg is None:
        return tokens, None
    tumour = torch.isin(sample.seg, torch.tensor(REGIONS["WT"], dtype=torch.uint8)).float()
    share = F.avg_pool3d(tumour[None, None], encoder.patch_size)[0, 0]
    return tokens, share[features.position.cpu().unbind(1)]


def _labelled(shards: ShardSet, most: int) -> list[int]:
    """Studies with a segmentation or a marker, evenly over the sets if there are more than asked.

    Raises:
        UsageError: If there is none.
    """
    found = [
        i for i in range(len(shards)) if shards.entry(i).has_seg or shards.record(i).get("labels")
    ]
    count = min(most, len(found))
    return [found[i * len(found) // count] for i in range(count)]


def _markers(studies: Sequence[tuple[str, dict[str, str]]]) -> dict[str, np.ndarray]:
    """Marker → 0, 1 or NaN for each study; of the grade, whether it is the highest."""
    rows = [read_labels(labels, f"study {key}") for key, labels in studies]
    table = {
        marker: np.array([row.get(marker, math.nan) for row in rows])
        for marker in sorted({marker for row in rows for marker in row})
    }
    table.pop("hgg", None)  # the grade in another form
    if (grade := table.pop("grade", None)) is not None:
        table["grade_4"] = np.where(np.isnan(grade), np.nan, grade == _HIGHEST_GRADE)
    return table
