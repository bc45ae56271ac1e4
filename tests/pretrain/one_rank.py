"""Loss and gradient of every objective on one of several processes, as a script.

    python one_rank.py RANK WORLD STORE SHARDS OUT

Each process takes its share of four studies; one view has no tissue, so that the shares are uneven.
Rank 0 writes means over the processes, as DeepSpeed takes them: `OUT` holds, for each objective,
the parts of the loss and the gradient of each weight.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.pretrain.build import build, open_data
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.objectives import OBJECTIVES
from gliomoe.pretrain.samples.views import StudyViews, Views, collate_pairs, make_views
from gliomoe.pretrain.sections import DataConfig, LossConfig, ModelConfig, RunConfig, ViewConfig

STUDIES = 4
Measured = dict[str, dict[str, torch.Tensor]]


def configure(shards: Path, objective: str) -> PretrainConfig:
    """A small run; the router's part of the loss is large enough to be seen."""
    return PretrainConfig(
        data=DataConfig(train=(str(shards),)),
        run=RunConfig(out=Path("nowhere")),
        model=ModelConfig(patch_size=4, experts=4, decoder_width=64, decoder_depth=1),
        views=ViewConfig(size=16, shift=4),
        augment=AugmentConfig(elastic_sigma=6),
        loss=LossConfig(objective=objective, routing=1.0, router_z=1.0),
    )


def make_share(config: PretrainConfig, rank: int, world: int) -> Views:
    """This rank's views of the batch; the first view of the first study is empty."""
    data = StudyViews(open_data(config), config.views, config.augment, 4, 0)
    share = STUDIES // world
    pairs = collate_pairs([data[n] for n in range(rank * share, (rank + 1) * share)])
    views = make_views(pairs, 16, 4, config.mask)
    if rank == 0:
        for part in (views.mask.keep, views.mask.predict, views.mask.masked):
            part[0] = False
    return views


def measure(shards: Path) -> Measured:
    """Objective → parts of the loss and gradients, averaged over the processes."""
    found: Measured = {}
    for name in OBJECTIVES:
        config = configure(shards, name)
        torch.manual_seed(0)
        _, module = build(config)
        parts = module(make_share(config, *distributed.world()))
        parts["loss"].backward()
        gradients = {
            key: weight.grad for key, weight in module.named_parameters() if weight.requires_grad
        }
        found[name] = {key: distributed.mean(value) for key, value in (parts | gradients).items()}
    return found


if __name__ == "__main__":
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    store = dist.FileStore(sys.argv[3], world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    result = measure(Path(sys.argv[4]))
    if rank == 0:
        torch.save(result, sys.argv[5])
    dist.barrier()  # neither leaves while the other still listens to it
    dist.destroy_process_group()
