"""The optimizer step through DeepSpeed; only the files of this folder import it.

Notable facts:
- A torch AdamW object is passed in: DeepSpeed's own optimizers by name compile C++ at the start.
- On CPU DeepSpeed would compile a shared-memory operator and fail without a compiler; it is turned
  off.
- A loss that is not finite is made NaN in every gradient. The gradients' reduction carries that to
  all ranks, where the norm then is not finite and the step is skipped alike, without a message of
  its own.
- `bf16` keeps weights in bf16 and computes as `autocast` does, so that routers, norms and losses
  are in fp32 there too; the optimizer steps on fp32 copies, which are what `weights` gives.
- Without ZeRO the gradient is clipped here, by the norm that is reported: DeepSpeed would take the
  norm a second time.
- DeepSpeed reads its checkpoints with pickle: `load` is for a run's own folder only.
"""

import io
import logging
import math
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from gliomoe.data_shards.errors import UsageError
from gliomoe.models.recompute import Recomputable, set_recompute
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.engine.expert_parallel import SharedExperts, initialize
from gliomoe.pretrain.engine.universal import load_untrained
from gliomoe.pretrain.engine.writing import recorded_writes
from gliomoe.pretrain.objectives.objective import Objective
from gliomoe.pretrain.objectives.running_mean import RunningMean
from gliomoe.pretrain.samples.views import Views


class Engine:
    """A module, its optimizer and the processes that train it together.

    Args:
        module: Takes views, returns scalars by name, `loss` among them.
        config: The run's configuration.
        precision: From `resolve_precision`.
        device: Where it trains.
        converted: Whether `load` will be given a checkpoint converted by `engine.universal`.
    """

    TAG = "engine"
    """Name of DeepSpeed's folder in a checkpoint."""

    def __init__(
        self,
        module: Objective,
        config: PretrainConfig,
        precision: str,
        device: torch.device,
        converted: bool = False,
    ):
        deepspeed = _import_deepspeed(device)
        self.device = device
        self.module = module
        self.precision = precision
        self._clip = config.optim.clip
        set_recompute(module.encoder, config.engine.recompute)
        if precision == "bf16" and device.type == "cpu":
            _cast_for_norms(module)
        if config.engine.compile:
            compile_blocks(module.encoder, config.engine.compile, device)
        module.to(device)
        shared = config.engine.expert_parallel
        self.experts = SharedExperts(module, shared) if shared > 1 else None
        optim, groups = config.optim, parameter_groups(module, config.optim.weight_decay)
        if self.experts is not None:
            groups = self.experts.separate(groups)
        optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas)
        world = distributed.world()[1]
        settings = _settings(config, precision, config.micro_batch(world))
        settings["checkpoint"] = {"load_universal": converted}
        options = {
            "model": module,
            "optimizer": optimizer,
            "config": settings,
            "dist_init_required": False,
        }
        with redirect_stdout(io.StringIO()):  # its bf16 optimizer prints
            if self.experts is None:
                self._engine = deepspeed.initialize(**options)[0]
            else:
                self._engine = initialize(**options)
        for part in module.modules():
            if isinstance(part, RunningMean):
                part.restore()

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Loss and its parts."""
        return self._engine(views)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of one part of the step; `last` says that no other part follows.

        A loss that is not finite spoils the gradients of the whole step, on all ranks.
        """
        # Without an `if`, for which a GPU would have to be waited for.
        loss = loss * torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan)
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss)

    def step(self, lr: float) -> float | None:
        """Clip and update the weights.

        Args:
            lr: Learning rate of this step.

        Returns:
            The norm of the gradient before clipping, or None if it was not finite and the step
            was skipped, on all ranks.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        if not self._engine.zero_optimization():
            return self._step_without_zero()
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        return norm if self._engine.was_step_applied() and math.isfinite(norm) else None

    def _step_without_zero(self) -> float | None:
        """As `step`, with one norm for the report and for clipping."""
        trained = {n: p for n, p in self.module.named_parameters() if p.grad is not None}
        gradients = {name: p.grad for name, p in trained.items() if p.grad is not None}
        shared = self.experts
        norm = shared.norm(gradients) if shared else get_total_norm(gradients.values())
        if not torch.isfinite(norm):
            self._engine.zero_grad()
            return None
        clip_grads_with_norm_(trained.values(), self._clip, norm)
        self._engine.step()
        return float(norm)

    def weights(self) -> dict[str, Tensor]:
        """All weights and buffers by name, on CPU, in fp32; every rank calls it."""
        found = self.module.state_dict()
        if self.precision == "bf16":
            from deepspeed.utils import safe_get_full_fp32_param

            for name, parameter in self.module.named_parameters():
                full = safe_get_full_fp32_param(parameter) if parameter.requires_grad else parameter
                found[name] = full.detach().float()
        if self.experts is not None:
            found = self.experts.whole(found)
        return {name: value.cpu().contiguous() for name, value in found.items()}

    def save(self, folder: Path) -> list[Path]:
        """Write weights, optimizer and generators; every rank calls it, between two steps.

        Returns:
            The files that this rank wrote.

        Raises:
            OSError: If this rank could not write; the others notice nothing.
        """
        generators = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.device)
        with recorded_writes(self._engine) as (write, written):
            write(generators, str(folder / self.TAG / _generators(distributed.world()[0])))
            self._engine.save_checkpoint(str(folder), tag=self.TAG, save_latest=False)
            if self.experts is not None and self.experts.writes:
                # DeepSpeed writes the weights of the first rank alone.
                write(self.experts.state(), str(folder / self.TAG / self.experts.file))
        return written

    def load(self, folder: Path, converted: Path | None = None) -> None:
        """Take up what `save` wrote; `RuntimeError` if it does not fit.

        Args:
            folder: Where `save` wrote.
            converted: The same converted to this number of processes and stage of ZeRO.
        """
        with redirect_stdout(io.StringIO()):
            path, _ = self._engine.load_checkpoint(str(converted or folder), tag=self.TAG)
        if path is None:
            raise RuntimeError(f"{folder}: DeepSpeed found no checkpoint")
        if converted:
            load_untrained(self.module, Path(path))
        if self.experts is not None:
            file = folder / self.TAG / self.experts.file
            self.experts.load_state(torch.load(file, weights_only=True))
        # A rank beyond those that wrote takes the generators of one of them.
        written = len(list((folder / self.TAG).glob(_generators("*"))))
        own = folder / self.TAG / _generators(distributed.world()[0] % written)
        generators = torch.load(own, weights_only=True)
        torch.set_rng_state(generators["cpu"])
        if self.device.type == "cuda" and "cuda" in generators:
            torch.cuda.set_rng_state(generators["cuda"], self.device)


def resolve_precision(wanted: str, device: torch.device) -> str:
    """`fp32`, `autocast` or `bf16`.

    `auto` takes autocast on GPUs that have bf16. On CPU it takes fp32 even where there are bf16
    instructions: the forward pass gains from them what the backward pass loses.
    """
    if wanted != "auto":
        return wanted
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "autocast" if fast else "fp32"


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices, which decay, and vectors (biases, norms), which do not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {
            "name": "matrices",
            "params": [p for p in trained if p.ndim > 1],
            "weight_decay": weight_decay,
        },
        {"name": "vectors", "params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _generators(rank: int | str) -> str:
    """Name of the file with the random generators of a rank."""
    return f"generators_{rank}.pt"


def compile_blocks(encoder: nn.Module, backend: str, device: torch.device) -> None:
    """Compile the blocks of an encoder in place, each for any number of tokens.

    Block by block: equal ones share a graph, so that a deep encoder takes no longer than a flat
    one. Weights keep their names.

    Raises:
        UsageError: If the backend is unknown or cannot compile on this machine.
    """
    try:
        torch.compile(torch.neg, backend=backend)(torch.ones(2, device=device))
    except Exception as error:  # each backend has its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(
            f"engine.compile {backend} does not work here: {reason}; "
            "inductor needs a C++ compiler; leave engine.compile empty to run without"
        ) from error
    for part in encoder.modules():
        if isinstance(part, Recomputable):
            part.compile(backend=backend, dynamic=True)


def _cast_for_norms(module: nn.Module) -> None:
    """Give norms tokens in the type of their weights, which autocast does on GPUs alone."""

    def cast(part: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(x.to(next(part.parameters()).dtype) for x in given)

    for part in module.modules():
        if isinstance(part, nn.LayerNorm | nn.GroupNorm | nn.InstanceNorm3d):
            part.register_forward_pre_hook(cast)


def _settings(config: PretrainConfig, precision: str, micro: int) -> dict[str, Any]:
    """DeepSpeed's configuration."""
    bf16 = precision == "bf16"
    return {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": config.engine.accumulation,
        "gradient_clipping": config.optim.clip if config.engine.zero_stage else 0.0,
        "zero_optimization": {"stage": config.engine.zero_stage},
        "bf16": {"enabled": bf16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
        # Gradients stay in the weights' own type: no module is "safe" to send in bf16.
        "torch_autocast": {
            "enabled": bf16 or precision == "autocast",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
    }


def _import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, quiet, without the operator that it would compile."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise it looks, and warns
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
