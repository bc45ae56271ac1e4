"""What a run is made of: model and objective, and the studies that it reads."""

from dataclasses import asdict
from typing import Any

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.format.dataset import fingerprint_of, join_infos, read_dataset
from gliomoe.data_shards.reading.reader import Reader, open_reader
from gliomoe.data_shards.storage.store import absolute_place, open_source
from gliomoe.models.encoders.encoder import Encoder
from gliomoe.models.model import Model
from gliomoe.models.moe.statistics import mixtures
from gliomoe.models.registry import create_model
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.objectives import create_objective
from gliomoe.pretrain.objectives.objective import Objective


def build(config: PretrainConfig) -> tuple[Model, Objective]:
    """The model and the objective that trains its encoder, with fresh weights.

    Raises:
        ModelError: If the model or one of its settings is unknown.
        UsageError: If the objective is unknown, the views do not fit the patches, or the experts
            cannot be shared out.
    """
    model = create_model(config.model.name, (), **config.model.overrides)
    check_experts(model, config)
    encoder = prepare_encoder(model.encoder, config)
    return model, create_objective(encoder, config)


def check_experts(model: Model, config: PretrainConfig) -> None:
    """Refuse to share out experts that are not there or do not divide.

    Raises:
        UsageError: If so.
    """
    shared, layers = config.engine.expert_parallel, mixtures(model)
    if shared > 1 and not layers:
        raise UsageError(
            f"engine.expert_parallel ({shared}) needs mixtures of experts, and "
            f"{config.model.name} has none here; leave it at 1"
        )
    for layer in layers.values():
        experts = len(layer.router.weight)
        if experts % shared:
            raise UsageError(
                f"engine.expert_parallel ({shared}) must divide the experts of a mixture "
                f"({experts}); change it or model.experts"
            )


def prepare_encoder(encoder: Encoder, config: PretrainConfig) -> Encoder:
    """The encoder, with the parts frozen that run only when all of an image is encoded.

    Raises:
        UsageError: If the views do not fit its patches, or lack sequences that it needs.
    """
    if encoder.sequences and config.views.hide:
        raise UsageError(
            f"{config.model.name} needs {', '.join(encoder.sequences)} in every view: give "
            "--views.hide False and studies that have them, or take a gliomoe or magpie model"
        )
    if config.views.size % encoder.stride:
        raise UsageError(
            f"views.size ({config.views.size}) must be a multiple of {encoder.stride}, "
            f"the stride of {config.model.name}"
        )
    for name in encoder.dense_only:
        encoder.get_submodule(name).requires_grad_(False)
    return encoder


def open_data(config: PretrainConfig) -> Reader:
    """The studies of a run by sample number; errors as of `open_reader`."""
    data = config.data
    return open_reader(
        data.train, data.order, config.run.seed, config.optim.batch, data.storage, data.allow_pipes
    )


def describe_data(config: PretrainConfig) -> dict[str, Any]:
    """What the run reads.

    Raises:
        UsageError: If there is no finished shard set, or the sets do not go together.
        DataError: If one is damaged or cannot be read.
    """
    data = config.data
    sources = [open_source(place, data.storage, data.allow_pipes) for place in data.train]
    info = join_infos(list(data.train), [read_dataset(source) for source in sources])
    return {
        "paths": [absolute_place(place) for place in data.train],
        "fingerprint": fingerprint_of(info),
        "studies": info["studies"],
        "order": {**asdict(data.order), "weights": list(data.order.weights)},
    }
