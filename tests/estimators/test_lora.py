"""A run that trains adapters: what it saves, what its engine samples from, and how it goes on."""

from dataclasses import replace
from pathlib import Path

import torch
from letters import STEPS, STOP, make, train
from transformers import AutoModelForCausalLM

from jqlight.estimators import GARL, Estimator
from jqlight.policy import LoRA, Policy


def adapted(path: str) -> Estimator:
    estimator = make(GARL, path)
    torch.manual_seed(0)  # of the adapters' first values
    estimator.policy = Policy(replace(estimator.policy.config, lora=LoRA(r=2, target_modules=["c_attn", "c_fc"])))
    return estimator


def test_a_run_with_adapters_saves_them_alone_and_goes_on_exactly(three_token_gpt2: str, tmp_path: Path) -> None:
    whole = adapted(three_token_gpt2)
    course = train(whole, STEPS, tmp_path / "whole")
    train(adapted(three_token_gpt2), STOP, tmp_path / "first")
    (stopped,) = (tmp_path / "first").glob("*.ckpt")
    content = torch.load(stopped, weights_only=True)
    trained = {f"policy.{name}" for name, p in whole.policy.named_parameters() if p.requires_grad}
    assert content["state_dict"].keys() == trained and all(".lora_" in name for name in trained)
    second = adapted(three_token_gpt2)
    torch.manual_seed(1)  # what the checkpoint lacks would be seen
    rest = train(second, STEPS, tmp_path / "second", resume=stopped)
    assert sorted(rest.steps) == list(range(STOP, STEPS))
    for step, metrics in rest.steps.items():
        assert metrics == course.steps[step]
    for ours, theirs in zip(whole.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_engine_samples_from_base_and_adapters_merged(three_token_gpt2: str, tmp_path: Path) -> None:
    estimator = adapted(three_token_gpt2)
    course = train(estimator, STOP, tmp_path)
    assert all(metrics["train/logprob_gap"] < 1e-5 for metrics in course.steps.values())
    base = AutoModelForCausalLM.from_pretrained(three_token_gpt2).state_dict()
    engine = dict(estimator.sampler.engine.model.named_parameters())
    merged = dict(estimator.policy.weights())
    moved = [name for name, tensor in engine.items() if not torch.equal(tensor, base[name])]
    assert moved and all(".c_attn.weight" in name or ".c_fc.weight" in name for name in moved)
    assert all(torch.equal(tensor, merged[name]) for name, tensor in engine.items())


def test_a_checkpoint_that_holds_the_base_model_too_is_read(three_token_gpt2: str) -> None:
    old, new = adapted(three_token_gpt2).policy, adapted(three_token_gpt2).policy
    old.load()
    new.load()
    with torch.no_grad():
        for parameter in old.parameters():
            parameter.add_(1)
    new.load_state_dict({name: parameter.detach() for name, parameter in old.named_parameters()})
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))
