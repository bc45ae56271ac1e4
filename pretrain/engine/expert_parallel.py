"""Experts shared out among processes, in DeepSpeed's expert groups.

N processes in a row make a group, of which each keeps E / N experts of every mixture; processes
with the same experts make another, over which those experts' gradients are summed. Tokens travel
to their experts and back without a limit on how many an expert takes, so that the result is that of
experts which are all at home.

Shapes: M rows (a token once for each of its experts), C channels, E experts, N processes.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from gliomoe.models.moe.dispatch import combine, dispatch, make_plan
from gliomoe.models.moe.experts import Experts
from gliomoe.models.moe.statistics import mixtures


class TokenExchange:
    """Rows to the processes of their experts, and back; gradients go the other way.

    Args:
        group: The N processes that share the experts.
    """

    def __init__(self, group: dist.ProcessGroup):
        self.group = group

    def __call__(
        self,
        experts: Callable[[Tensor, Tensor, Tensor], Tensor],
        x: Tensor,
        counts: Tensor,
        weight: Tensor,
    ) -> Tensor:
        """What the experts of all processes make of the rows of this one.

        Args:
            experts: Those of this process: rows, rows of each of the E / N, weights → rows.
            x: [M, C], the rows of expert 0, then those of expert 1, …
            counts: [E] int64, rows of each expert.
            weight: [M], what the output of each row is multiplied by.

        Returns:
            [M, C].
        """
        sent = counts.view(dist.get_world_size(self.group), -1)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        there, here = sent.sum(1).tolist(), received.sum(1).tolist()
        both = torch.cat([x, weight.to(x.dtype).unsqueeze(1)], dim=1)
        both = _Travel.apply(both, there, here, self.group)
        # They arrive process by process, and are wanted expert by expert.
        expert = torch.arange(received.numel(), device=x.device) % received.shape[1]
        plan = make_plan(expert.repeat_interleave(received.flatten()).unsqueeze(1))
        rows = dispatch(both, plan)
        made = experts(rows[:, :-1].contiguous(), received.sum(0), rows[:, -1])
        return _Travel.apply(combine(made, plan), here, there, self.group)


class _Travel(torch.autograd.Function):
    """Rows to other processes: `there` of them to each, `here` from each."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, there: list[int], here: list[int], group: dist.ProcessGroup
    ) -> Tensor:
        ctx.sizes, ctx.group = (there, here), group
        return _exchange(rows, there, here, group)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        there, here = ctx.sizes
        return _exchange(upstream, here, there, ctx.group), None, None, None


def _exchange(rows: Tensor, there: list[int], here: list[int], group: dist.ProcessGroup) -> Tensor:
    """The rows that arrive, process by process."""
    arriving = rows.new_empty(sum(here), rows.shape[1])
    dist.all_to_all_single(arriving, rows.contiguous(), here, there, group=group)
    return arriving


class SharedExperts:
    """The experts of a module, of which every process keeps its share.

    All processes build the module alike and then drop what is not theirs; DeepSpeed knows the
    parameters that stay by their marks.

    Args:
        module: With mixtures, on its device.
        size: N, which divides the number of processes and the experts of every mixture.
    """

    def __init__(self, module: nn.Module, size: int):
        from deepspeed.utils import groups

        groups._create_expert_and_data_parallel(size)
        name = f"ep_size_{size}"
        self.group = groups._get_expert_parallel_group(name)
        self.rank = groups._get_expert_parallel_rank(name)
        self.writes = groups._get_expert_data_parallel_rank(name) == 0
        self.size = size
        self.layers: dict[str, Experts] = {
            f"{place}.experts": layer.experts for place, layer in mixtures(module).items()
        }
        exchange = TokenExchange(self.group)
        for layer in self.layers.values():
            for own, whole in list(layer.named_parameters()):
                part = whole.detach().chunk(size)[self.rank].clone()
                kept = nn.Parameter(part, whole.requires_grad)  # a teacher's are not trained
                kept.allreduce, kept.group_name = False, name  # type: ignore[attr-defined]
                setattr(layer, own, kept)
            layer.exchange = exchange

    def separate(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An optimizer's groups of parameters, with the experts in groups of their own."""
        from deepspeed.moe.utils import split_params_into_different_moe_groups_for_optimizer

        return split_params_into_different_moe_groups_for_optimizer(groups)

    def norm(self, gradients: dict[str, Tensor]) -> Tensor:
        """Norm of the gradient over the experts of all processes and all else, scalar.

        Args:
            gradients: Those of this process, by name in the module.
        """
        experts = self.parameters()
        squared = get_total_norm([g for n, g in gradients.items() if n in experts]).square()
        dist.all_reduce(squared, group=self.group)
        rest = get_total_norm([g for n, g in gradients.items() if n not in experts]).square()
        return (rest + squared).sqrt()

    def parameters(self) -> dict[str, nn.Parameter]:
        """This process's share, by name in the module."""
        return {
            f"{place}.{own}": parameter
            for place, layer in self.layers.items()
            for own, parameter in layer.named_parameters()
        }

    def whole(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights by name with all experts in them; every process calls it."""
        found = dict(weights)
        for name in self.parameters():
            own = weights[name].contiguous()
            parts = [torch.empty_like(own) for _ in range(self.size)]
            dist.all_gather(parts, own, group=self.group)
            found[name] = torch.cat(parts)
        return found

    @property
    def file(self) -> str:
        """Name of the file with this process's share."""
        return f"experts_{self.rank}_of_{self.size}.pt"

    def state(self) -> dict[str, Tensor]:
        """A copy of this process's share, by name in the module."""
        # Of its own storage: in DeepSpeed's all weights lie in one, which would be saved whole.
        return {name: parameter.detach().clone() for name, parameter in self.parameters().items()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        for name, parameter in self.parameters().items():
            parameter.copy_(state[name])


def initialize(**options: Any) -> Any:
    """As `deepspeed.initialize`, for a module whose experts are shared out.

    DeepSpeed reduces gradients over expert groups only if it finds mixtures of its own class.
    """
    from deepspeed import DeepSpeedConfig
    from deepspeed.runtime.engine import DeepSpeedEngine

    class ExpertEngine(DeepSpeedEngine):
        def _configure_distributed_model(self, model: nn.Module) -> None:
            super()._configure_distributed_model(model)
            self.has_moe_layers = True
            self.num_experts = [len(layer.router.weight) for layer in mixtures(model).values()]

    settings = DeepSpeedConfig(options["config"])
    return ExpertEngine(args=None, config_class=settings, **options)
