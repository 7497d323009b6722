"""Sums over data-parallel ranks. With one rank each function returns what it was given.

Gradients are reduced here, once per optimizer step, and not by a wrapper's hooks: a rank runs as many backward passes
as its groups need, and ranks need different numbers of them.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

BUCKET_BYTES = 128 << 20
"""Gradients are summed over ranks in buffers of about so many bytes: enough for the network's full rate, and far from a
second copy of them all."""


def world_size() -> int:
    """Number of data-parallel ranks."""
    # An embedded engine starts torch.distributed with one rank of its own, so initialised does not mean parallel.
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _reduce(values: list[float], operation: dist.ReduceOp.RedOpType, device: torch.device) -> list[float]:
    if world_size() == 1:
        return values
    buffer = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(buffer, operation)
    return buffer.tolist()


def total(value: int, device: torch.device) -> int:
    """Sum of ``value`` over ranks."""
    return round(_reduce([float(value)], dist.ReduceOp.SUM, device)[0])


def mean(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Mean of each value over the ranks that have it (a rank whose groups are all dead has no log_success)."""
    if world_size() == 1:
        return values
    names: list[set[str] | None] = [None] * world_size()
    dist.all_gather_object(names, set(values))
    keys = sorted(set().union(*(n for n in names if n)))
    own = [values.get(k, 0.0) for k in keys] + [float(k in values) for k in keys]
    sums = _reduce(own, dist.ReduceOp.SUM, device)
    return {key: sums[i] / sums[len(keys) + i] for i, key in enumerate(keys)}


def gathered(value: Any) -> list[Any]:
    """Every rank's ``value``, which can be pickled, in the order of the ranks."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def largest(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Maximum of each value over ranks; every rank has the same names."""
    return dict(zip(values, _reduce(list(values.values()), dist.ReduceOp.MAX, device), strict=True))


def first(text: str | None, device: torch.device) -> str | None:
    """The text of the first rank that has one, with the rank's number; None where none has."""
    if world_size() == 1 or not largest({"has": float(text is not None)}, device)["has"]:
        return text
    return next(f"rank {rank}: {found}" for rank, found in enumerate(gathered(text)) if found is not None)


def sum_gradients(module: nn.Module) -> None:
    """Sum every trainable parameter's gradient over ranks in place; a missing gradient counts as zero.

    Afterwards every trainable parameter has a gradient on every rank, so that optimizers step alike. Needs
    :data:`BUCKET_BYTES` of memory beyond the gradients.
    """
    by_dtype: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for parameter in module.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            by_dtype[parameter.dtype].append(parameter.grad)
    if world_size() == 1:
        return
    for bucket in (bucket for gradients in by_dtype.values() for bucket in _buckets(gradients)):
        if len(bucket) == 1 and bucket[0].is_contiguous():
            dist.all_reduce(bucket[0])
            continue
        flat = torch.cat([g.flatten() for g in bucket])
        dist.all_reduce(flat)
        for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """``gradients`` in their order, cut into lists of at most :data:`BUCKET_BYTES` together or one tensor."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(g.nbytes for g in bucket) + gradient.nbytes > BUCKET_BYTES:
            yield bucket
            bucket = []
        bucket.append(gradient)
    yield bucket


def leave_unwrapped(strategy: DDPStrategy) -> None:
    """Have Lightning give all ranks rank 0's weights and leave it at that.

    It would wrap the module in torch's DistributedDataParallel, whose buckets are one more copy of all gradients, never
    used: :func:`sum_gradients` reduces them.
    """

    def configure_ddp() -> None:
        module = strategy.model
        assert module is not None, "Lightning sets the module before this"
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.detach(), src=0)

    # On the object, as the trainer has made its strategy already.
    strategy.configure_ddp = configure_ddp  # type: ignore[method-assign]
