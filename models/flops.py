"""FLOPs and memory of a forward pass, counted operator by operator without computing them.

Parameters, and all that depends on them, are fake tensors: shape, type and device, no data. Inputs
are real, so that their content decides as it always does which positions hold tissue and which
sequences are there. A router has no data to decide from: `topk` of fake numbers answers with a
real choice, spread evenly. Every token reaches its K experts whichever they are, so the count of a
dropless mixture is exact.

One multiply-add counts as 2. Matrix products, convolutions and attention count, as
`torch.utils.flop_counter` defines them; norms, activations, pooling, interpolation and
`grid_sample` (deformable sampling) do not: memory bounds them, not arithmetic.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from gliomoe.models.errors import ModelError

aten = torch.ops.aten


def count_flops(module: nn.Module, *inputs: Any) -> int:
    """FLOPs of `module(*inputs)`, gradients left out.

    Args:
        module: On the meta device or the CPU; the values of its parameters are not looked at.
        *inputs: Real tensors on the CPU, or dataclasses of them.

    Raises:
        ModelError: If the module asks for a value that only a computation can tell, or uses an
            operator that torch cannot trace.
    """
    counter = FlopCounterMode(display=False)
    # The mathematical form of attention: the same products on every machine, all counted.
    tracing = _tracing(module, "FLOPs")
    with torch.no_grad(), _plain_attention(), tracing as (trace, fakes), trace, counter:
        functional_call(module, fakes, inputs)
    return counter.get_total_flops()


def count_kept_bytes(module: nn.Module, *inputs: Any, autocast: bool = False) -> int:
    """Bytes that autograd keeps of `module(*inputs)` for the backward pass, weights left out.

    Args:
        module: As in `count_flops`.
        *inputs: As in `count_flops`.
        autocast: Compute in bf16, as in mixed precision.

    Raises:
        ModelError: As in `count_flops`.
    """
    kept: dict[int, torch.UntypedStorage] = {}  # alive, so that no number is given out twice

    with _tracing(module, "memory") as (trace, fakes):
        weights = {weight.untyped_storage()._cdata for weight in fakes.values()}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = storage
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with hooks, trace, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            functional_call(module, fakes, inputs)
    return sum(storage.nbytes() for storage in kept.values())


@contextmanager
def _tracing(module: nn.Module, what: str) -> Iterator[tuple["FakeTrace", dict[str, Tensor]]]:
    """A trace and the module's parameters and buffers in it, without data."""
    trace = FakeTrace()
    fakes = {
        name: trace.fake(weight).requires_grad_(weight.requires_grad)
        for name, weight in module.named_parameters()
    }
    for name, buffer in module.named_buffers():
        # Edges of a graph and the like say where, not how much: they keep their data.
        says_where = not (buffer.is_floating_point() or buffer.is_meta)
        fakes[name] = buffer if says_where else trace.fake(buffer)
    try:
        yield trace, fakes
    except (NotImplementedError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        name = type(module).__name__
        raise ModelError(
            f"{name}: its {what} cannot be counted without computing: {reason}"
        ) from error


class FakeTrace(TorchDispatchMode):
    """Computes with real tensors, and with fake ones as soon as one operand is fake."""

    def __init__(self) -> None:
        super().__init__()
        self.mode = FakeTensorMode()
        self.overwritten: dict[int, torch.UntypedStorage] = {}

    def fake(self, tensor: Tensor) -> Tensor:
        """A tensor of the same form on the CPU, without data."""
        if isinstance(tensor, FakeTensor):
            return tensor
        with self.mode:
            return torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu"
            )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator."""
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(self._unknown(tensor) for tensor in tensors):
            return func(*args, **kwargs)
        for tensor in _written(func, args, kwargs):
            if not isinstance(tensor, FakeTensor):  # its values are out of date from here on
                storage = tensor.untyped_storage()
                self.overwritten[storage._cdata] = storage
        if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
            args = (args[0], [i for m in args[1] for i in self._as_numbers(m)], *args[2:])
        args, kwargs = tree_map_only(Tensor, self.fake, (args, kwargs))
        with self.mode:
            result = func(*args, **kwargs)
        if func.overloadpacket is aten.topk:
            return result[0], _spread(args[0].shape, result[1].shape, *args[2:3])
        return result

    def _unknown(self, tensor: Tensor) -> bool:
        """Whether the values of a tensor are not there."""
        if isinstance(tensor, FakeTensor) or tensor.is_meta:
            return True
        return bool(self.overwritten) and tensor.untyped_storage()._cdata in self.overwritten

    def _as_numbers(self, index: Tensor | None) -> Sequence[Tensor | None]:
        """A mask with data as the numbers it stands for, so that shapes follow from it."""
        if index is None or self._unknown(index) or index.dtype != torch.bool:
            return [index]
        return index.nonzero().unbind(1)


def _spread(shape: torch.Size, chosen: torch.Size, dim: int = -1) -> Tensor:
    """A choice along one dimension that takes all of its positions equally often."""
    rows = chosen[:dim] + chosen[dim:][1:]
    start = torch.arange(rows.numel()).view(*rows, 1)
    steps = torch.arange(chosen[dim])
    return ((start + steps) % shape[dim]).movedim(-1, dim).contiguous()


def _written(func: Any, args: tuple, kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The arguments that an operator changes in place."""
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[number] if number < len(args) else kwargs.get(argument.name)
        yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as products, without fused kernels that no counter knows."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
