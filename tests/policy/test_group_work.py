"""What a group runs, counted: the prompt once, no scoring pass where the group fits, no row without a coefficient."""

import math

import pytest
import torch
from naive_policy import (
    COEFFICIENTS,
    CONTINUATIONS,
    PROMPT,
    SCALE,
    gradients,
    grouped,
    load,
    make_group,
    naive,
    relative_error,
)

from jqlight.objective import Coefficients, paft
from jqlight.policy import Continuation, Policy, batching, forward

DISTINCT = len(CONTINUATIONS) - 1


@pytest.fixture
def no_pass_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Micro-batches by padding alone; else a group as small as these is always one."""
    monkeypatch.setattr(batching, "_PASS_TOKENS", 0)


class Passes:
    """Shapes (rows, tokens) of the decoder's forward passes, and whether each had a graph."""

    def __init__(self, policy: Policy) -> None:
        make_group(policy).log_answer()  # the check of the architecture is behind us
        self.shapes: list[tuple[int, int]] = []
        self.graphs: list[bool] = []
        self.remove = policy.model.get_decoder().register_forward_pre_hook(self._note, with_kwargs=True).remove

    def _note(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        self.shapes.append(tuple((args[0] if args else kwargs["input_ids"]).shape))
        self.graphs.append(torch.is_grad_enabled())


def only(*rows: int) -> Coefficients:
    """Coefficients that are zero but for ``rows``."""
    mask = torch.zeros(len(CONTINUATIONS), dtype=torch.float64)
    mask[list(rows)] = 1.0
    return Coefficients(COEFFICIENTS.score * mask, COEFFICIENTS.pathwise * mask)


def test_a_group_that_fits_runs_prompt_and_rows_once(tiny_gpt2: str) -> None:
    policy = load(tiny_gpt2)
    passes = Passes(policy)
    group = make_group(policy)
    group.log_rationale(), group.log_answer(), group.token_logprobs()
    group.backward(COEFFICIENTS, SCALE)
    assert passes.shapes == [(1, len(PROMPT)), (DISTINCT, 12)]  # the last token predicts nothing: 13 - 1


def test_a_larger_group_is_scored_without_graph_and_its_prompt_still_runs_once(tiny_gpt2: str) -> None:
    policy = load(tiny_gpt2, micro_batch_tokens=25)
    passes = Passes(policy)
    group = make_group(policy)
    group.log_rationale()
    scoring = len(passes.shapes)
    assert passes.graphs == [True] + [False] * (scoring - 1)
    group.backward(COEFFICIENTS, SCALE)
    assert passes.shapes.count((1, len(PROMPT))) == 1
    assert passes.graphs[scoring:] == [True] * (scoring - 1)
    assert sum(rows for rows, _ in passes.shapes[scoring:]) == DISTINCT


def test_micro_batches_hold_rows_of_like_length(tiny_gpt2: str, no_pass_cost: None) -> None:
    policy = load(tiny_gpt2)
    passes = Passes(policy)
    group = make_group(policy)
    group.log_rationale()
    assert sum(rows * tokens for rows, tokens in passes.shapes[1:]) == sum(
        len([*z, *forced, *y]) - 1 for z, forced, y in CONTINUATIONS[:DISTINCT]
    )
    policy.model.zero_grad()
    group.backward(COEFFICIENTS, SCALE)
    assert relative_error(gradients(policy.model), naive(policy.model).grads) < 1e-10


@pytest.mark.parametrize("budget", [25, "auto"])
def test_zero_coefficients_run_nothing_backward(tiny_gpt2: str, budget: int | str) -> None:
    policy = load(tiny_gpt2, micro_batch_tokens=budget)
    passes = Passes(policy)
    group = make_group(policy)
    group.log_answer()
    before = len(passes.shapes)
    group.backward(only(), SCALE)
    assert len(passes.shapes) == before
    assert all(parameter.grad is None for parameter in policy.model.parameters())


@pytest.mark.parametrize("share", [True, False])
def test_only_rows_with_a_coefficient_are_recomputed(tiny_gpt2: str, share: bool) -> None:
    policy = load(tiny_gpt2, micro_batch_tokens=25, share_prompt=share)
    want = naive(policy.model, only(0, 5)).grads
    passes = Passes(policy)
    got = grouped(policy, only(0, 5))
    assert relative_error(got.grads, want) < 1e-10
    recomputed = [shape for shape, graph in zip(passes.shapes, passes.graphs) if graph]
    assert sum(rows for rows, _ in recomputed) == (3 if share else 2)  # the shared prompt is the third


def test_few_rows_of_a_kept_graph_are_recomputed_and_most_are_not(tiny_gpt2: str) -> None:
    policy = load(tiny_gpt2)
    for rows, recomputed in [((1,), [(1, 4)]), ((0, 2, 3, 4, 5), [])]:
        want = naive(policy.model, only(*rows)).grads
        passes = Passes(policy)
        got = grouped(policy, only(*rows))
        assert passes.shapes[2:] == recomputed
        passes.remove()
        assert relative_error(got.grads, want) < 1e-10


def test_values_of_rows_that_backward_left_out_come_without_graph(tiny_gpt2: str) -> None:
    policy = load(tiny_gpt2)
    want = grouped(policy).log_answer
    passes = Passes(policy)
    group = make_group(policy)
    group.backward(only(0, 2), SCALE)
    assert sum(rows for rows, _ in passes.shapes[1:]) == 2
    torch.testing.assert_close(group.log_answer(), want, rtol=1e-12, atol=1e-12)
    assert passes.shapes.count((1, len(PROMPT))) == 1
    assert sum(rows for rows, _ in passes.shapes[1:]) == DISTINCT
    assert passes.graphs[-1] is False


def test_identical_continuations_are_one_row_with_the_sum_of_their_coefficients(tiny_gpt2: str) -> None:
    policy = load(tiny_gpt2)
    want = naive(policy.model, only(1, 6)).grads
    passes = Passes(policy)
    got = grouped(policy, only(1, 6))
    assert passes.shapes[-1] == (1, 4)
    assert relative_error(got.grads, want) < 1e-10


@pytest.mark.parametrize("budget", [25, "auto"])
def test_paft_runs_each_drawn_rationale_once_with_its_count(
    tiny_gpt2: str, budget: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rationale 0 is drawn four times of six, rationale 4 twice: two rows backward, as if repeated by hand."""
    draws = torch.tensor([[0, 4, 0, 0, 4, 0]])
    monkeypatch.setattr(torch, "multinomial", lambda *_, **__: draws)
    policy = load(tiny_gpt2, micro_batch_tokens=budget)
    log_w = make_group(policy).log_answer().unsqueeze(0)
    drawn = paft(log_w, 0.75, num_resamples=6)
    coefficients = Coefficients(drawn.score[0], drawn.pathwise[0])
    weight = (0.25 * (log_w.logsumexp(-1) - math.log(7)) - 0.75 * math.log(7)).exp().item()  # w̄^(1-q) / M^q
    assert coefficients.score.tolist() == pytest.approx([weight * n / 6 for n in (4, 0, 0, 0, 2, 0, 0)], rel=1e-12)
    want = naive(policy.model, coefficients).grads
    passes = Passes(policy)
    got = grouped(policy, coefficients)
    assert relative_error(got.grads, want) < 1e-10
    with_graph = [rows for (rows, _), graph in zip(passes.shapes, passes.graphs) if graph]
    assert sum(with_graph[-len(with_graph) + 1 + (budget == "auto") :]) == 2  # behind the prompt and the kept pass


@pytest.mark.parametrize("share", [True, False])
def test_the_head_is_applied_at_scored_positions_alone(
    tiny_gpt2: str, share: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at the prompt's, nor at forced tokens', nor at padding."""
    states: list[int] = []
    for name in ("token_log_probs", "log_probs"):
        function = getattr(forward, name)
        monkeypatch.setattr(
            forward,
            name,
            lambda hidden, *rest, function=function: states.append(len(hidden)) or function(hidden, *rest),
        )
    policy = load(tiny_gpt2, share_prompt=share)
    make_group(policy).log_answer()  # the check of the architecture is behind us
    states.clear()
    group = make_group(policy)
    group.log_answer()
    group.backward(COEFFICIENTS, SCALE)
    sampled = sum(len(z) + len(y) for z, _, y in CONTINUATIONS[:DISTINCT])
    scored_first = sum(1 for z, _, _ in CONTINUATIONS[:DISTINCT] if z)
    assert states == ([1, sampled - scored_first] if share else [sampled])


def test_a_single_row_runs_with_its_prompt_in_one_pass(tiny_gpt2: str) -> None:
    policy = load(tiny_gpt2)
    passes = Passes(policy)
    group = policy.group(PROMPT, [CONTINUATIONS[1], CONTINUATIONS[6]])  # the same tokens
    assert group.log_answer()[0] == group.log_answer()[1]
    assert passes.shapes == [(1, len(PROMPT) + 4)]


def test_rows_of_one_token_need_the_prompt_alone(tiny_gpt2: str) -> None:
    policy = load(tiny_gpt2)
    passes = Passes(policy)
    group = policy.group(PROMPT, [Continuation([], [], [token]) for token in (7, 9, 30)])
    distribution = policy.model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(group.log_answer(), distribution[[7, 9, 30]].detach(), rtol=1e-12, atol=1e-12)
    one = torch.ones(3, dtype=torch.float64)
    policy.model.zero_grad()
    group.backward(Coefficients(one, one), 1.0)
    assert passes.shapes == [(1, len(PROMPT)), (1, len(PROMPT))]  # the group's and the line above
    got = policy.model.transformer.wte.weight.grad.clone()
    policy.model.zero_grad()
    (-distribution[[7, 9, 30]].sum()).backward()
    torch.testing.assert_close(got, policy.model.transformer.wte.weight.grad, rtol=1e-10, atol=1e-12)


def test_an_empty_continuation_has_log_probability_zero(tiny_gpt2: str) -> None:
    policy = load(tiny_gpt2)
    group = policy.group(PROMPT, [Continuation([], [], []), Continuation([], [4], [])])
    assert group.log_rationale().tolist() == [0.0, 0.0]
    assert group.log_answer().tolist() == [0.0, 0.0]
    assert [len(tokens) for tokens in group.token_logprobs()] == [0, 0]
    one = torch.ones(2, dtype=torch.float64)
    group.backward(Coefficients(one, one), 1.0)
    assert all(parameter.grad is None for parameter in policy.model.parameters())
