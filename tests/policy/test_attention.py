"""Attention behind a shared prompt in two parts: equal to the softmax over both, in values and in all gradients."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from naive_policy import CONTINUATIONS, PROMPT, grouped, load, naive, relative_error
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM, GptOssConfig, GptOssForCausalLM

from jqlight.policy import attention
from jqlight.policy.attention import NAME, PromptBeside, TwoParts, UnsuitableError, attend, why_not_two_parts

SHAPES = [
    pytest.param(3, 4, 2, 5, 7, 8, id="grouped heads"),
    pytest.param(2, 3, 3, 1, 130, 16, id="one token a row"),
    pytest.param(1, 6, 1, 70, 40, 8, id="one key head, rows longer than the prompt"),
]


def tensors(n: int, heads: int, key_heads: int, length: int, prompt: int, size: int) -> list[Tensor]:
    """Query, key, value, and the prompt's keys and values, float64."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(n, heads, length), (n, key_heads, length), (n, key_heads, length), *[(1, key_heads, prompt)] * 2]
    return [torch.randn(*shape, size, generator=generator, dtype=torch.float64) for shape in shapes]


def softmax(query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """The definition: one softmax over the prompt and a row's own tokens up to its own."""
    n, heads, length, _ = query.shape
    groups, prompt = heads // key.shape[1], keys.shape[2]
    all_keys, all_values = (
        torch.cat([shared.expand(n, -1, -1, -1), own], 2).repeat_interleave(groups, 1)
        for shared, own in ((keys, key), (values, value))
    )
    seen = torch.ones(length, prompt + length, dtype=torch.bool).tril(prompt)
    scores = (scale * query @ all_keys.transpose(-1, -2)).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ all_values


def with_gradients(attention: Callable[..., Tensor], inputs: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Output and the five gradients of a weighted sum of it, in float64."""
    leaves = [one.to(dtype).requires_grad_() for one in inputs]
    output = attention(*leaves, 0.3)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    return [one.detach().double() for one in (output, *torch.autograd.grad(output, leaves, weights))]


def errors(found: list[Tensor], right: list[Tensor]) -> list[float]:
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, right, strict=True)]


@pytest.mark.parametrize(("n", "heads", "key_heads", "length", "prompt", "size"), SHAPES)
def test_values_and_gradients_are_those_of_one_softmax(
    n: int, heads: int, key_heads: int, length: int, prompt: int, size: int
) -> None:
    inputs = tensors(n, heads, key_heads, length, prompt, size)
    right = with_gradients(softmax, inputs, torch.float64)
    assert max(errors(with_gradients(TwoParts.apply, inputs, torch.float64), right)) < 1e-12
    assert max(errors(with_gradients(TwoParts.apply, inputs, torch.float32), right)) < 1e-6


def sdpa(query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """torch's own on copies of the prompt."""
    n, prompt, length = len(query), keys.shape[2], query.shape[2]
    both = [torch.cat([a.expand(n, -1, -1, -1), b], 2) for a, b in ((keys, key), (values, value))]
    seen = torch.ones(length, prompt + length, dtype=torch.bool).tril(prompt)
    return torch.nn.functional.scaled_dot_product_attention(query, *both, seen, scale=scale, enable_gqa=True)


def test_half_precision_is_no_worse_than_torchs_own_attention() -> None:
    inputs = [one.bfloat16().double() for one in tensors(4, 4, 2, 33, 200, 32)]
    right = with_gradients(softmax, inputs, torch.float64)
    own = errors(with_gradients(sdpa, inputs, torch.bfloat16), right)
    two = errors(with_gradients(TwoParts.apply, inputs, torch.bfloat16), right)
    assert all(a <= 1.01 * b for a, b in zip(two, own, strict=True))


@pytest.mark.parametrize(
    ("model", "dtype", "tolerance"),
    [("tiny_gpt2", torch.float64, 1e-10), ("tiny_qwen3", torch.float32, 2e-6), ("tiny_llama", torch.float32, 2e-6)],
)
@pytest.mark.parametrize("two_parts", [True, False])
def test_groups_gradient_is_the_naive_one_either_way(
    model: str, dtype: torch.dtype, tolerance: float, two_parts: bool, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(model)
    right = naive(load(path).model)
    policy = load(path, dtype)
    policy.group(PROMPT, CONTINUATIONS)
    assert policy._route.two_parts
    policy._route = policy._route._replace(two_parts=two_parts)
    found = grouped(policy)
    torch.testing.assert_close(found.log_answer, right.log_answer, rtol=tolerance, atol=10 * tolerance)
    assert relative_error(found.grads, right.grads) < tolerance


def test_checkpointed_layers_and_autocast_give_the_same(tiny_qwen3: str) -> None:
    right = naive(load(tiny_qwen3).model)
    policy = load(tiny_qwen3, gradient_checkpointing=True)
    assert relative_error(grouped(policy).grads, right.grads) < 1e-6
    assert policy._route.two_parts
    with torch.autocast("cpu", torch.bfloat16):
        mixed = load(tiny_qwen3, torch.float32)
        found = [grouped(mixed)]
        mixed._route = mixed._route._replace(two_parts=False)
        found.append(grouped(mixed))
    two, copies = (relative_error(one.grads, right.grads) for one in found)
    assert two < 1.2 * copies


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_kernel_of_this_torch_is_found_right(dtype: torch.dtype) -> None:
    assert attention.why_not_kernel(torch.device("cpu"), dtype, 16) is None


def test_a_wrong_gradient_or_a_missing_kernel_keeps_copies(tiny_qwen3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values alone would not tell: the backward of a part is given its own log-sum-exp, or is not there."""
    backward = attention._backward

    def wrong(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, part: tuple, *rest: float, causal: bool):
        part = part._replace(log_sum=part.log_sum + 0.1)
        return backward(gradient, query, key, value, part, *rest, causal=causal)

    def missing(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such kernel\ntrace")

    model = load(tiny_qwen3).model
    for replaced, reason in (("_backward", wrong), "off by"), (("_forward", missing), "no such kernel"):
        with monkeypatch.context() as patch, torch.no_grad():
            patch.setattr(attention, *replaced)
            assert reason in why_not_two_parts(model)
    with torch.inference_mode():
        assert why_not_two_parts(model) is None


SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "layer_types": ["full_attention"],
}


def test_what_is_more_than_a_softmax_is_found(tiny_qwen3: str) -> None:
    capped = Gemma2ForCausalLM(Gemma2Config(**SIZES, attn_logit_softcapping=20.0, attn_implementation="sdpa"))
    assert why_not_two_parts(capped) == "attn_logit_softcapping = 20.0"
    sinks = GptOssForCausalLM(GptOssConfig(**SIZES, num_local_experts=2, num_experts_per_tok=1))
    assert why_not_two_parts(sinks) is not None
    model = load(tiny_qwen3).model
    assert why_not_two_parts(model) is None
    model.set_attn_implementation("eager")
    assert why_not_two_parts(model) == "attention of its own (eager)"


def test_a_mask_or_an_effect_behind_a_prompt_is_refused() -> None:
    query, key, value, keys, values = tensors(2, 2, 2, 3, 4, 8)
    for mask, options in (
        (torch.ones(2, 1, 3, 3, dtype=torch.bool), {}),
        (None, {"softcap": 5.0}),
        (None, {"s_aux": 1}),
    ):
        known, _ = PromptBeside(keys, values).update(key.clone(), value)
        with pytest.raises(UnsuitableError, match=r"^attention with (a mask|softcap|s_aux)"):
            attend(torch.nn.Module(), query, known, value, mask, **options)


def test_an_architecture_that_refuses_inside_keeps_copies(tiny_qwen3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load(tiny_qwen3)
    right = naive(policy.model)
    for layer in policy.model.get_decoder().layers:
        layer.self_attn.sliding_window = 1000  # handed to the attention function, and wider than any row
    found = grouped(policy)
    assert (policy._route.share, policy._route.two_parts) == (True, False)
    assert relative_error(found.grads, right.grads) < 1e-6


def test_other_passes_of_the_model_and_its_export_do_not_change(tiny_llama: str, tmp_path: Path) -> None:
    policy = load(tiny_llama)
    ids = torch.tensor([[0, 0, 5, 17, 40], [8, 23, 60, 11, 12]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    with torch.no_grad():
        before = policy.model(ids, attention_mask=mask).logits
        policy.group(PROMPT, CONTINUATIONS)
        assert policy.model.config._attn_implementation == NAME
        after = policy.model(ids, attention_mask=mask).logits
    assert torch.equal(before, after)
    policy.export(tmp_path)
    assert NAME not in json.dumps(json.loads((tmp_path / "config.json").read_text()))


def test_under_autocast_attention_is_computed_in_its_format() -> None:
    query, key, value, keys, values = (one.float() for one in tensors(2, 2, 2, 3, 4, 8))
    known, _ = PromptBeside(keys, values).update(key, value)
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = attend(torch.nn.Module(), query, known, value.bfloat16(), None)
    assert output.dtype == torch.bfloat16
    assert output.shape == (2, 3, 2, 8)
