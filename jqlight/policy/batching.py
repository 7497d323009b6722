"""The continuations of one prompt as tensors, and their division into micro-batches."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

RATIONALE, ANSWER = 1, 2
"""Kinds of scored tokens in :attr:`Rows.kind`; 0 is padding or a forced token."""

_PASS_TOKENS = 256
"""What one more forward and backward pass costs on top of its tokens, in tokens: launches and small matrices."""


class Continuation(NamedTuple):
    """Token ids of one continuation of a prompt, in their order.

    ``forced_ids`` were inserted, not sampled: they are in the context of the answer and have no score.
    """

    rationale_ids: list[int]
    forced_ids: list[int]
    answer_ids: list[int]


class Budget(NamedTuple):
    """How much may be held in memory at once.

    Attributes:
        tokens: tokens whose activations fit.
        copy_share: what a copy of one prompt token's keys and values (every row has one) costs, in tokens.
    """

    tokens: int
    copy_share: float


class Rows(NamedTuple):
    """The distinct continuations of a group, padded on the right.

    Attributes:
        tokens: token ids, (U, L) int64, padded with the row's first token (some models warn about pad tokens).
        kind: :data:`RATIONALE`, :data:`ANSWER`, or 0 where nothing is scored, (U, L) int8.
        lengths: tokens of each row.
        inverse: index of each of the M continuations among the U rows, (M,).
    """

    tokens: Tensor
    kind: Tensor
    lengths: list[int]
    inverse: Tensor


def build_rows(continuations: Sequence[Continuation], device: torch.device) -> Rows:
    """Rows of ``continuations``; identical ones become one row, because their log-probabilities are equal."""
    index: dict[tuple[tuple[int, ...], ...], int] = {}
    inverse = [index.setdefault(tuple(map(tuple, one)), len(index)) for one in continuations]
    lengths = [sum(map(len, parts)) for parts in index]
    width = max(lengths, default=0)
    tokens = [[*rationale, *forced, *answer] for rationale, forced, answer in index]
    kinds = [[RATIONALE] * len(z) + [0] * len(forced) + [ANSWER] * len(y) for z, forced, y in index]
    return Rows(
        torch.tensor([row + (row[:1] or [0]) * (width - len(row)) for row in tokens], dtype=torch.long, device=device),
        torch.tensor([row + [0] * (width - len(row)) for row in kinds], dtype=torch.int8, device=device),
        lengths,
        torch.tensor(inverse, dtype=torch.long, device=device),
    )


def plan(lengths: Sequence[int], budget: int, *, extra: float = 0.0) -> list[list[int]]:
    """Micro-batches as lists of indices into ``lengths``: the division with the least padded work.

    Rows are sorted by length, and each micro-batch is a run of them padded to its longest. The division minimises
    padded tokens plus a constant for every pass, over all divisions in which no micro-batch of two or more rows costs
    more than ``budget``; a single row above the budget is a micro-batch of its own.

    Args:
        lengths: tokens of each row.
        budget: tokens held at once.
        extra: tokens that each row costs on top of its own (its copy of the prompt).
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    best: list[tuple[float, int]] = [(0.0, 0)]  # cost of the first j rows, and where their last micro-batch begins
    for end in range(1, len(order) + 1):
        options = []
        for start in range(end - 1, -1, -1):
            cost = (end - start) * (lengths[order[start]] + extra)
            if cost > budget and end - start > 1:
                break
            options.append((best[start][0] + cost + _PASS_TOKENS, start))
        best.append(min(options))
    batches: list[list[int]] = []
    end = len(order)
    while end:
        start = best[end][1]
        batches.append(order[start:end])
        end = start
    return batches[::-1]


def padded_cost(batches: Sequence[Sequence[int]], lengths: Sequence[int], *, extra: float = 0.0) -> float:
    """Tokens of all ``batches`` together, padding included."""
    return sum(len(rows) * (max(lengths[i] for i in rows) + extra) for rows in batches)
