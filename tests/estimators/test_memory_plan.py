"""The line on memory that a run begins with, against what a small model really holds."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig

from jqlight.estimators.memory_plan import MemoryPlan, plan_memory, plan_of
from jqlight.machine import GIB
from jqlight.policy import LoRA, Policy, PolicyConfig
from jqlight.policy.adapters import adapter_numbers
from jqlight.sampling import SamplerConfig
from jqlight.sampling.memory import cache_token_bytes

SHAPE = {"prompt": 100, "rollouts": 4, "rollout_tokens": 20, "cache": 5e3}


@pytest.mark.parametrize("kind", ["tiny_qwen3", "tiny_llama", "tiny_gpt2"])
@pytest.mark.parametrize("targets", ["all-linear", ["c_attn", "q_proj"]])
def test_adapters_are_counted_without_a_model(kind: str, targets: object, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    lora = LoRA(r=3, target_modules=targets)
    policy = Policy(PolicyConfig(path, lora=lora))
    policy.load()
    trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    assert adapter_numbers(AutoConfig.from_pretrained(path), lora) == trained > 0


def test_bytes_follow_formats_and_optimizer(tiny_llama: str) -> None:
    config = AutoConfig.from_pretrained(tiny_llama)
    exact = plan_memory(config, numbers=1000, trained=1000, engine_dtype="float32", mixed=False, **SHAPE)
    assert (exact.weights, exact.gradients, exact.optimizer, exact.undo, exact.engine) == (4e3, 4e3, 8e3, 12e3, 4e3)
    assert exact.cache == 5e3
    adapters = plan_memory(config, numbers=1000, trained=10, state=0.0, **SHAPE)
    assert (adapters.weights, adapters.gradients, adapters.undo, adapters.engine) == (4e3, 40, 40, 2e3)
    assert adapters.checkpointed < adapters.group < exact.group


def test_a_pass_holds_the_heads_gradient_and_under_autocast_a_second_copy_of_all(tiny_llama: str) -> None:
    config = AutoConfig.from_pretrained(tiny_llama)
    head, shape = config.vocab_size * config.hidden_size, SHAPE | {"rollouts": 0, "prompt": 0}
    plan = lambda **settings: plan_memory(config, numbers=1000, **settings, **shape).group  # noqa: E731
    assert plan(trained=1000, mixed=False) == 4 * head
    assert plan(trained=1000) == 4 * head + (2 + 2) * 1000 + (2 + 2) * head
    assert plan(trained=10) == 2 * 1000 + 2 * 10 + (2 + 2) * head
    assert plan(trained=1000, dtype="bfloat16") == 2 * head


def test_a_run_plans_with_its_own_settings(tiny_llama: str) -> None:
    policy = Policy(PolicyConfig(tiny_llama))
    budgets = {"max_thinking_tokens": 20, "max_answer_tokens": 7, "max_num_seqs": 3}
    config = SamplerConfig("transformers", dtype="bfloat16", **budgets)
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # noqa: E731
    run = {"numbers": 500, "prompt": 64, "rollouts": 4, "mixed": False, "device": torch.device("cpu")}
    plan = plan_of(policy, config, sgd, **run)
    model = AutoConfig.from_pretrained(tiny_llama)
    expected = plan_memory(
        model, numbers=500, trained=500, state=0.0, prompt=64, rollouts=4,
        rollout_tokens=28, cache=3 * 92 * cache_token_bytes(model, "bfloat16"), mixed=False,
    )  # fmt: skip
    assert plan == expected
    within = plan_of(policy, replace(config, engine="vllm", memory_gib=0.5), sgd, **run)
    assert within == replace(expected, cache=GIB / 2)


def test_what_is_told_fits_80_columns() -> None:
    plan = MemoryPlan(2 * GIB, 2 * GIB, 4 * GIB, 6 * GIB, 30 * GIB, 2.5 * GIB, GIB, 8 * GIB)
    assert plan.text(76 * GIB).splitlines() == [
        "memory in GiB: weights 2, gradients 2, optimizer 4; free 76",
        "  engine 1, its cache 8; to undo a step 6 of host memory",
        "  a whole group 30 (2.5 with checkpointing)",
    ]
    small = MemoryPlan(*(1.2345e-4 * GIB for _ in range(8)))
    assert max(map(len, small.text(123 * GIB).splitlines())) <= 80
