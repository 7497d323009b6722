"""Rows are merged and padded without loss; micro-batches are the cheapest division within the budget."""

import itertools

import pytest
import torch

from jqlight.policy.batching import ANSWER, RATIONALE, Continuation, build_rows, padded_cost, plan


def test_rows_hold_tokens_kinds_and_the_way_back() -> None:
    a, b = Continuation([5, 6, 7], [9], [3, 1]), Continuation([5], [], [3, 1])
    rows = build_rows([a, b, a], torch.device("cpu"))
    assert rows.inverse.tolist() == [0, 1, 0]
    assert rows.lengths == [6, 3]
    assert rows.tokens[0].tolist() == [5, 6, 7, 9, 3, 1]
    assert rows.tokens[1, :3].tolist() == [5, 3, 1]
    assert rows.kind.tolist() == [
        [RATIONALE, RATIONALE, RATIONALE, 0, ANSWER, ANSWER],
        [RATIONALE, ANSWER, ANSWER, 0, 0, 0],
    ]


def test_the_same_tokens_split_otherwise_are_another_row() -> None:
    rows = build_rows([Continuation([5, 6], [], [1]), Continuation([5], [6], [1])], torch.device("cpu"))
    assert rows.inverse.tolist() == [0, 1]


@pytest.mark.parametrize("budget", [1, 10, 700, 1500, 10_000])
@pytest.mark.parametrize("extra", [0.0, 40.0])
def test_plan_is_the_best_division_of_the_sorted_rows(budget: int, extra: float) -> None:
    lengths = [3, 900, 20, 450, 430, 7, 880]
    batches = plan(lengths, budget, extra=extra)
    assert sorted(itertools.chain(*batches)) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or padded_cost([batch], lengths, extra=extra) <= budget
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    costs = []
    for cuts in itertools.product([False, True], repeat=len(order) - 1):
        parts: list[list[int]] = [[order[0]]]
        for index, cut in zip(order[1:], cuts):
            parts.append([index]) if cut else parts[-1].append(index)
        if all(len(part) == 1 or padded_cost([part], lengths, extra=extra) <= budget for part in parts):
            costs.append(padded_cost(parts, lengths, extra=extra) + 256 * len(parts))
    assert padded_cost(batches, lengths, extra=extra) + 256 * len(batches) == pytest.approx(min(costs))


def test_no_rows_no_batches() -> None:
    assert plan([], 100) == []
    assert padded_cost([], []) == 0
