"""What `launch/gpu_check.sh` measures: one function an item, each run in a process of its own."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from gliomoe.launch.bench.inputs import study_for
from gliomoe.launch.bench.objective import full_views, masked_reconstruction
from gliomoe.models import create_model
from gliomoe.models.flops import count_flops
from gliomoe.models.moe import experts
from gliomoe.models.moe.layer import MixtureOfExperts
from gliomoe.models.recompute import set_recompute
from gliomoe.pretrain.objectives.mae import MaskedAutoencoder
from gliomoe.pretrain.planning.hardware import find_gpu
from gliomoe.pretrain.samples.views import Views

TASKS = ("seg", "idh")


@dataclass(frozen=True)
class Setup:
    """On what, and how large."""

    device: str = "cuda"
    size: int = 128
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    batch: int = 4
    """Studies where only one batch is measured."""
    seconds: float = 2.5
    """How long a figure is repeated."""
    patience: float = 40.0
    """Seconds of an item after which it begins no larger batch; what it has is kept."""


def machine(setup: Setup) -> dict[str, Any]:
    """The device and its peak."""
    if setup.device == "cpu":
        return {"device": "cpu", "peak_bf16_tflops": None}
    name = torch.cuda.get_device_name()
    return {
        "device": name,
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory,
        "capability": list(torch.cuda.get_device_capability()),
        "cuda": torch.version.cuda,
        "peak_bf16_tflops": gpu.peak_tflops if (gpu := find_gpu(name)) else None,
    }


def flops(model: str, setup: Setup) -> dict[str, Any]:
    """Counted FLOPs of a study: a forward pass of pretraining, and one of inference."""
    with torch.device("meta"):
        objective = masked_reconstruction(model)
        whole = create_model(model, TASKS).eval()
    size = setup.size
    return {
        "pretraining_forward": count_flops(
            objective, full_views(1, size, objective.encoder.patch_size)
        ),
        "inference": count_flops(whole, study_for(whole, size)),
    }


def pretraining(model: str, setup: Setup) -> dict[str, Any]:
    """Steps of batches of more and more studies until memory or time ends."""
    begun = time.monotonic()
    objective = masked_reconstruction(model).to(setup.device)
    found: dict[str, Any] = {}
    for batch in setup.batches:
        if time.monotonic() - begun > setup.patience:
            found[str(batch)] = "left out: no time"
            break
        try:
            found[str(batch)] = _steps(objective, objective, batch, setup)
        except torch.cuda.OutOfMemoryError:
            found[str(batch)] = "out of memory"
            break
    fits = [int(batch) for batch, step in found.items() if isinstance(step, dict)]
    return {"batches": found, "largest_batch_that_ran": max(fits, default=None)}


def recomputed(model: str, setup: Setup) -> dict[str, Any]:
    """A step with gradient checkpointing."""
    objective = masked_reconstruction(model).to(setup.device)
    set_recompute(objective, True)
    return _steps(objective, objective, setup.batch, setup)


def compiled(model: str, setup: Setup) -> dict[str, Any]:
    """A step under `torch.compile`."""
    objective = masked_reconstruction(model).to(setup.device)
    return _steps(objective, torch.compile(objective), setup.batch, setup)


def inference(model: str, setup: Setup) -> dict[str, Any]:
    """Latency of one study with all voxels tissue."""
    return _latency(model, setup, compile_it=False)


def inference_compiled(model: str, setup: Setup) -> dict[str, Any]:
    """The same under `torch.compile`."""
    return _latency(model, setup, compile_it=True)


def precision(model: str, setup: Setup) -> dict[str, Any]:
    """Outputs in bf16 against fp32 on this device: largest difference over the largest value."""
    torch.manual_seed(0)
    network = create_model(model, TASKS).to(setup.device).eval()
    batch = study_for(network, min(setup.size, 64)).to(setup.device)
    with torch.no_grad():
        exact = network(batch)
        with _bf16(setup):
            rounded = network(batch)
    pairs = {"pooled": (exact.features.pooled, rounded.features.pooled)}
    if exact.seg is not None and rounded.seg is not None:
        pairs["seg"] = (exact.seg, rounded.seg)
    return {name: _difference(*pair) for name, pair in pairs.items()}


def experts_agree(model: str, setup: Setup) -> dict[str, Any]:
    """The mixture in bf16 by grouped products and by the loop: outputs, gradients, seconds."""
    torch.manual_seed(0)
    width, tokens = (64, 256) if setup.device == "cpu" else (768, 16384)
    layer = MixtureOfExperts(width, hidden=width, experts=8, top_k=2).to(setup.device)
    x = torch.randn(tokens, width, device=setup.device, requires_grad=True)

    def run() -> tuple[Tensor, ...]:
        with _bf16(setup):
            y = layer(x)[0]
        weights = list(layer.experts.parameters())
        return (y, *torch.autograd.grad(y.float().square().mean(), [x, *weights]))

    results: dict[str, tuple[Tensor, ...]] = {}
    seconds: dict[str, float] = {}
    for way in ("loop", "grouped"):
        patch = mock.patch.object(experts, "has_grouped_mm", lambda *_, way=way: way == "grouped")
        if way == "grouped" and not _can_group(x, setup):
            return {"grouped": "not available on this device", "loop_s": seconds["loop"]}
        with patch:
            results[way] = run()
            seconds[way] = _repeat(run, setup)["step_s"]
    names = ("output", "gradient of x", "gradient of weights in", "gradient of weights out")
    pairs = zip(names, results["grouped"], results["loop"], strict=False)
    return {
        "difference": {name: _difference(a, b) for name, a, b in pairs},
        "loop_s": seconds["loop"],
        "grouped_s": seconds["grouped"],
        "tokens": tokens,
    }


def _steps(
    objective: MaskedAutoencoder, callee: Callable[..., Any], studies: int, setup: Setup
) -> dict[str, Any]:
    """Forward, backward and AdamW in bf16; `callee` is the objective or its compiled form."""
    views = _to(full_views(studies, setup.size, objective.encoder.patch_size), setup.device)
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5, fused=setup.device != "cpu")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with _bf16(setup):
            loss = callee(views)["loss"]
        loss.backward()
        optimizer.step()

    found = _repeat(step, setup)
    return {"studies": studies, "studies_per_s": round(studies / found["step_s"], 3), **found}


def _latency(model: str, setup: Setup, compile_it: bool) -> dict[str, Any]:
    """Forward pass of one study in bf16."""
    torch.manual_seed(0)
    network = create_model(model, TASKS).to(setup.device).eval()
    batch = study_for(network, setup.size).to(setup.device)
    run: Callable[..., Any] = torch.compile(network) if compile_it else network

    def forward() -> None:
        with torch.no_grad(), _bf16(setup):
            run(batch)

    return _repeat(forward, setup)


def _repeat(step: Callable[[], Any], setup: Setup) -> dict[str, Any]:
    """Median seconds after two that do not count, and the most memory."""
    begun = time.perf_counter()
    if setup.device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        step()
        _wait(setup)
    warm = time.perf_counter() - begun
    spent: list[float] = []
    while len(spent) < 3 or (sum(spent) < setup.seconds and len(spent) < 50):
        begun = time.perf_counter()
        step()
        _wait(setup)
        spent.append(time.perf_counter() - begun)
    found = {"step_s": statistics.median(spent), "steps": len(spent), "warm_up_s": round(warm, 2)}
    if setup.device != "cpu":
        found["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    return found


def _bf16(setup: Setup) -> AbstractContextManager[object]:
    """Mixed precision."""
    return torch.autocast(setup.device, torch.bfloat16)


def _can_group(x: Tensor, setup: Setup) -> bool:
    """Whether grouped products are fast here."""
    with _bf16(setup):
        return experts.has_grouped_mm(x.to(torch.bfloat16))


def _difference(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a part of the largest value."""
    return ((a.float() - b.float()).abs().max() / b.float().abs().max().clamp(min=1e-12)).item()


def _to(views: Views, device: str) -> Views:
    """Views on another device."""
    mask = type(views.mask)(*(part.to(device) for part in vars(views.mask).values()))
    batch = views.complete.to(device)
    subject = views.subject.to(device)
    return replace(views, visible=batch, complete=batch, mask=mask, subject=subject)


def _wait(setup: Setup) -> None:
    """Until the device has done what it was given."""
    if setup.device != "cpu":
        torch.cuda.synchronize()
