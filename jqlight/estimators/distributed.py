"""Sums over data-parallel ranks. With one rank each function returns what it was given.

Gradients are reduced here, once per optimizer step and in one flat buffer, and not by a wrapper's hooks: a rank runs as
many backward passes as its groups need, and ranks need different numbers of them.
"""

from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


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

    Afterwards every trainable parameter has a gradient on every rank, so that optimizers step alike.
    """
    by_dtype: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for parameter in module.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            by_dtype[parameter.dtype].append(parameter.grad)
    if world_size() == 1:
        return
    for gradients in by_dtype.values():
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
