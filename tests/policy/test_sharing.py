"""Architectures that cannot share a prompt, or do more in their head than a linear map, are found and still right."""

import logging
from types import SimpleNamespace

import pytest
import torch
from naive_policy import CONTINUATIONS, PROMPT, grouped, load, make_group, naive, relative_error
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
)

from jqlight.policy import Continuation, Policy, PolicyConfig, sharing
from jqlight.policy.forward import Route
from jqlight.policy.sharing import why_not_compact, why_not_shared

SIZES = {
    "vocab_size": 109,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 1,
}


def gemma3() -> PreTrainedModel:
    return Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, sliding_window=4, layer_types=["sliding_attention"] * 2))


def mistral() -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4))


def gemma2() -> PreTrainedModel:
    return Gemma2ForCausalLM(
        Gemma2Config(**SIZES, layer_types=["full_attention"] * 2, sliding_window=4, final_logit_softcapping=2.0)
    )


def granite() -> PreTrainedModel:
    return GraniteForCausalLM(GraniteConfig(**{k: v for k, v in SIZES.items() if k != "head_dim"}, logits_scaling=3.0))


def mamba() -> PreTrainedModel:
    return MambaForCausalLM(MambaConfig(vocab_size=109, hidden_size=32, num_hidden_layers=2, state_size=4))


def policy_of(model: PreTrainedModel, **fields: object) -> Policy:
    """A policy around a model made here, float64, with weights spread enough to matter."""
    policy = Policy(PolicyConfig("unused", **fields))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    policy.model = model.double().train()
    return policy


@pytest.mark.parametrize(
    ("make", "reason"),
    [(gemma3, "layers of type sliding_attention"), (mistral, "sliding_window = 4"), (mamba, "recurrent")],
)
def test_config_tells_what_cannot_share(make: object, reason: str) -> None:
    torch.manual_seed(0)
    assert reason in why_not_shared(make())


def test_models_with_plain_attention_can_share(tiny_qwen3: str, tiny_llama: str, tiny_gpt2: str) -> None:
    for path in (tiny_qwen3, tiny_llama, tiny_gpt2):
        assert why_not_shared(load(path).model) is None
        assert why_not_compact(load(path).model) is None
    unused_window = Qwen2Config(sliding_window=32, use_sliding_window=False)
    assert why_not_shared(SimpleNamespace(config=unused_window)) is None


@pytest.mark.parametrize(
    ("make", "route"),
    [
        (gemma3, Route(share=False, compact=True)),
        (mistral, Route(share=False, compact=True)),
        (mamba, Route(share=False, compact=True)),
        (gemma2, Route(share=True, compact=False)),
        (granite, Route(share=True, compact=False, two_parts=True)),
    ],
)
@pytest.mark.parametrize("budget", [30, "auto"])
def test_gradient_is_the_naive_one_along_the_chosen_route(make: object, route: Route, budget: int | str) -> None:
    torch.manual_seed(0)
    policy = policy_of(make(), micro_batch_tokens=budget)
    want, got = naive(policy.model), grouped(policy)
    assert policy._route == route
    torch.testing.assert_close(got.log_answer, want.log_answer, rtol=1e-6, atol=1e-6)
    assert relative_error(got.grads, want.grads) < 1e-6


def test_a_cache_that_is_not_honoured_is_measured(tiny_qwen3: str, caplog: pytest.LogCaptureFixture) -> None:
    """A model that counts positions from 0 even behind a cache: its config hides it, its log-probabilities do not."""
    policy = load(tiny_qwen3)

    def count_from_zero(module: torch.nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, {**kwargs, "position_ids": torch.arange(kwargs["input_ids"].shape[1])[None]}

    policy.model.get_decoder().register_forward_pre_hook(count_from_zero, with_kwargs=True)
    want = naive(policy.model)
    got = grouped(policy)
    assert policy._route == Route(share=False, compact=True)
    assert relative_error(got.grads, want.grads) < 1e-6
    assert len(caplog.records) == 1
    assert "differs from the plain model" in caplog.text


def test_the_measurement_looks_at_the_end_of_a_long_row(tiny_qwen3: str) -> None:
    policy = load(tiny_qwen3)
    shapes: list[tuple[int, ...]] = []
    policy.model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    policy.group(PROMPT, [Continuation([7] * 100, [], []), Continuation([9], [], [])])
    length = len(PROMPT) + 100
    assert shapes == [(1, length - 1), (1, length - 64), (1, 63)]


@pytest.mark.parametrize("make", [gemma2, granite])
def test_a_head_that_is_not_linear_is_measured_too(monkeypatch: pytest.MonkeyPatch, make: object) -> None:
    torch.manual_seed(0)
    policy = policy_of(make())
    monkeypatch.setattr(sharing, "why_not_compact", lambda model: None)
    want, got = naive(policy.model), grouped(policy)
    assert policy._route.compact is False
    assert relative_error(got.grads, want.grads) < 1e-6


def test_one_log_line_in_all(caplog: pytest.LogCaptureFixture) -> None:
    policy = policy_of(gemma3())
    for _ in range(3):
        make_group(policy).log_answer()
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        "Prompts are not shared by their rollouts: the model has layers of type sliding_attention."
    ]


def test_a_model_that_can_share_says_nothing(tiny_qwen3: str, caplog: pytest.LogCaptureFixture) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        policy = load(tiny_qwen3, dtype)
        make_group(policy).log_answer()
        assert policy._route == Route(share=True, compact=True, two_parts=True)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_group_too_short_to_tell_decides_nothing(tiny_gpt2: str) -> None:
    policy = load(tiny_gpt2)
    group = policy.group(PROMPT, [Continuation([], [], [1])])
    assert group.log_answer().item() < 0
    assert policy._route is None
    policy.group(PROMPT, CONTINUATIONS)
    assert policy._route == Route(share=True, compact=True, two_parts=True)
