"""A group's log-probabilities and gradients are those of the naive computation, however the work is cut."""

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

from jqlight.objective import Coefficients
from jqlight.policy import Continuation, LoRA

# Norms and rotary embeddings of Qwen3 and Llama run in float32 for weights of any format.
MODELS = [("tiny_gpt2", 1e-10), ("tiny_qwen3", 1e-6), ("tiny_llama", 1e-6)]
# 1: every row alone; 10 to 60: several micro-batches, scored first; 200: kept in two or one; auto: kept in one.
BUDGETS = [1, 10, 25, 40, 60, 200, "auto"]


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(("path", "tolerance"), MODELS, indirect=["path"])
def test_equal_to_the_naive_computation_for_every_budget(path: str, tolerance: float, share: bool) -> None:
    policy = load(path, share_prompt=share)
    want = naive(policy.model)
    for budget in BUDGETS:
        policy = load(path, share_prompt=share, micro_batch_tokens=budget)
        got = grouped(policy)
        torch.testing.assert_close(got.log_rationale, want.log_rationale, rtol=1e-12, atol=1e-10)
        torch.testing.assert_close(got.log_answer, want.log_answer, rtol=1e-12, atol=1e-10)
        assert relative_error(got.grads, want.grads) < tolerance, budget
        assert got.log_rationale.dtype == torch.float64
        assert not got.log_rationale.requires_grad


@pytest.mark.parametrize("budget", [25, "auto"])
def test_order_of_the_rollouts_does_not_matter(tiny_gpt2: str, budget: int | str) -> None:
    policy = load(tiny_gpt2, micro_batch_tokens=budget)
    want = grouped(policy)
    order = torch.tensor([6, 2, 0, 5, 3, 1, 4])
    policy.model.zero_grad()
    group = policy.group(PROMPT, [CONTINUATIONS[i] for i in order])
    torch.testing.assert_close(group.log_answer(), want.log_answer[order], rtol=1e-12, atol=1e-12)
    group.backward(Coefficients(COEFFICIENTS.score[order], COEFFICIENTS.pathwise[order]), SCALE)
    assert relative_error(gradients(policy.model), want.grads) < 1e-12


def test_forced_tokens_have_no_score(tiny_gpt2: str) -> None:
    """The same tokens, once as sampled and once as forced: other log-probabilities and another gradient."""
    policy = load(tiny_gpt2)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    found = {}
    for name, continuation in {
        "none": Continuation([7, 9], [], [20, 1]),
        "sampled": Continuation([7, 9, 4], [], [20, 1]),
        "forced": Continuation([7, 9], [4], [20, 1]),
        "only forced": Continuation([], [7, 9, 4], [20, 1]),
    }.items():
        policy.model.zero_grad()
        group = policy.group(PROMPT, [continuation])
        log_z = group.log_rationale().item()
        group.backward(Coefficients(one, zero), 1.0)
        found[name] = log_z, gradients(policy.model), group.log_answer().item()
    assert found["forced"][0] == pytest.approx(found["none"][0], abs=1e-12)
    assert relative_error(found["forced"][1], found["none"][1]) < 1e-12
    assert found["sampled"][0] < found["forced"][0] - 1e-3
    assert relative_error(found["sampled"][1], found["none"][1]) > 1e-3
    assert found["only forced"][0] == 0.0
    assert found["only forced"][1] == {}
    # in the context of the answer all the same
    assert found["forced"][2] == pytest.approx(found["sampled"][2], abs=1e-12)
    assert abs(found["forced"][2] - found["none"][2]) > 1e-3


def test_separator_and_end_of_sequence_count_in_the_answer(tiny_gpt2: str) -> None:
    policy = load(tiny_gpt2)
    with_end = policy.group(PROMPT, [Continuation([7, 4], [], [20, 21, 1])])
    without = policy.group(PROMPT, [Continuation([7, 4], [], [20, 21])])
    last = with_end.token_logprobs()[0][-1].item()
    assert last < 0
    assert with_end.log_answer().item() == pytest.approx(without.log_answer().item() + last, abs=1e-12)


@pytest.mark.parametrize("budget", [25, "auto"])
def test_token_logprobs_are_the_scored_tokens_in_order(tiny_gpt2: str, budget: int | str) -> None:
    policy = load(tiny_gpt2, micro_batch_tokens=budget)
    group = make_group(policy)
    for tokens, one, z, y in zip(group.token_logprobs(), CONTINUATIONS, group.log_rationale(), group.log_answer()):
        split = len(one.rationale_ids)
        assert tokens.shape == (split + len(one.answer_ids),)
        assert tokens[:split].sum().item() == pytest.approx(z.item(), abs=1e-12)
        assert tokens[split:].sum().item() == pytest.approx(y.item(), abs=1e-12)


@pytest.mark.parametrize("budget", [25, "auto"])
def test_backward_needs_no_scoring_before_it(tiny_gpt2: str, budget: int | str) -> None:
    policy = load(tiny_gpt2, micro_batch_tokens=budget)
    want = grouped(policy)
    policy.model.zero_grad()
    group = make_group(policy)
    group.backward(COEFFICIENTS, SCALE)
    assert relative_error(gradients(policy.model), want.grads) < 1e-12
    torch.testing.assert_close(group.log_answer(), want.log_answer, rtol=1e-12, atol=1e-12)


def test_scoring_without_gradient_can_be_followed_by_backward(tiny_gpt2: str) -> None:
    policy = load(tiny_gpt2)
    want = grouped(policy)
    policy.model.zero_grad()
    group = make_group(policy)
    with torch.inference_mode():
        torch.testing.assert_close(group.log_answer(), want.log_answer, rtol=1e-12, atol=1e-12)
    group.backward(COEFFICIENTS, SCALE)
    assert relative_error(gradients(policy.model), want.grads) < 1e-12


def test_gradients_accumulate_over_groups_and_a_group_serves_once(tiny_gpt2: str) -> None:
    policy = load(tiny_gpt2)
    want = grouped(policy).grads
    group = make_group(policy)
    group.backward(COEFFICIENTS, 2 * SCALE)
    assert relative_error(gradients(policy.model), {n: 3 * g for n, g in want.items()}) < 1e-12
    with pytest.raises(RuntimeError, match="one backward"):
        group.backward(COEFFICIENTS, SCALE)


@pytest.mark.parametrize("budget", [25, "auto"])
@pytest.mark.parametrize("share", [True, False])
def test_lora_gradient_equals_the_naive_one(tiny_qwen3: str, share: bool, budget: int | str) -> None:
    torch.manual_seed(0)
    policy = load(tiny_qwen3, lora=LoRA(r=3), share_prompt=share, micro_batch_tokens=budget)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:  # zero at first, which would leave every lora_A without a gradient
            torch.nn.init.normal_(parameter, std=0.1)
    want = naive(policy.model)
    got = grouped(policy)
    assert all("lora_" in name for name in got.grads)
    assert relative_error(got.grads, want.grads) < 1e-6


@pytest.mark.parametrize("budget", [25, "auto"])
def test_gradient_checkpointing_changes_memory_only(tiny_qwen3: str, budget: int | str) -> None:
    outcomes, runs = [], []
    for recompute in (False, True):
        policy = load(tiny_qwen3, gradient_checkpointing=recompute, micro_batch_tokens=budget)
        calls: list[int] = []
        policy.model.model.layers[0].self_attn.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        outcomes.append(grouped(policy))
        runs.append(len(calls))
    assert relative_error(outcomes[1].grads, outcomes[0].grads) < 1e-12
    passes_with_graph = 1 + len(make_group(policy)._plan(range(6)))  # the prompt and its micro-batches
    assert runs[1] - runs[0] == passes_with_graph


@pytest.mark.parametrize("budget", [25, "auto"])
def test_bfloat16_weights_with_float32_log_softmax(tiny_qwen3: str, budget: int | str) -> None:
    want = naive(load(tiny_qwen3).model)
    policy = load(tiny_qwen3, torch.bfloat16, micro_batch_tokens=budget)
    got = grouped(policy)
    assert policy.model.lm_head.weight.grad.dtype == torch.bfloat16
    assert (got.log_answer - want.log_answer).abs().max() < 0.5
    assert relative_error(got.grads, want.grads) < 0.1


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("budget", [25, "auto"])
def test_autocast_keeps_every_gradient(tiny_qwen3: str, budget: int | str, share: bool) -> None:
    """Autocast caches weights that it cast without a graph in the scoring pass: gradients would be missing."""
    want = naive(load(tiny_qwen3).model)
    policy = load(tiny_qwen3, torch.float32, micro_batch_tokens=budget, share_prompt=share)
    with torch.autocast("cpu", torch.bfloat16):
        got = grouped(policy)
    assert relative_error(got.grads, want.grads) < 0.1
