"""Loading, weights for the engine, adapters and export."""

import json
import sys
from pathlib import Path

import pytest
import torch
from naive_policy import load
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from jqlight.errors import ConfigError
from jqlight.policy import LoRA, Policy, PolicyConfig

IDS = torch.tensor([[5, 17, 40, 8, 23, 60, 11, 12]])
MODELS = ["tiny_gpt2", "tiny_qwen3", "tiny_llama"]


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def adapted(path: str, **fields: object) -> Policy:
    """A policy whose adapters have moved away from zero."""
    policy = load(path, torch.float32, lora=LoRA(r=2, **fields))
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return policy


def test_tokenizer_and_format_need_no_weights(tiny_qwen3: str) -> None:
    policy = Policy(PolicyConfig(tiny_qwen3))
    assert policy.path == str(Path(tiny_qwen3).resolve())
    assert policy.format.eos_ids == (1,)
    assert policy.tokenizer.eos_token == "<eos>"
    assert not policy.loaded
    assert not list(policy.parameters())


def test_every_end_of_sequence_of_the_generation_config_ends_an_answer(tiny_qwen3: str, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(tiny_qwen3).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((Path(tiny_qwen3) / "config.json").read_text())
    assert Policy(PolicyConfig(str(tmp_path))).format.eos_ids == (1,)
    for ids, expected in ((7, (1, 7)), ([9, 1, 8], (1, 9, 8))):
        GenerationConfig(eos_token_id=ids).save_pretrained(tmp_path)
        assert Policy(PolicyConfig(str(tmp_path))).format.eos_ids == expected


def test_loading_twice_keeps_the_weights(tiny_qwen3: str) -> None:
    policy = load(tiny_qwen3, torch.float32)
    model = policy.model
    policy.load()
    assert policy.model is model
    assert policy.loaded
    assert all(p.requires_grad for p in policy.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_have_the_configured_format(tiny_qwen3: str, dtype: str) -> None:
    policy = Policy(PolicyConfig(tiny_qwen3, dtype=dtype))
    policy.load()
    assert {p.dtype for p in policy.parameters()} == {getattr(torch, dtype)}


def test_dropout_is_off_in_training_mode_and_back_in_an_export(tiny_gpt2: str, tmp_path: Path) -> None:
    assert json.loads((Path(tiny_gpt2) / "config.json").read_text())["resid_pdrop"] == 0.1
    policy = load(tiny_gpt2, torch.float32)
    assert policy.model.training
    assert torch.equal(policy.model(IDS).logits, policy.model.eval()(IDS).logits)
    policy.export(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["resid_pdrop"] == 0.1


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("path", MODELS, indirect=True)
def test_weights_have_the_names_and_shapes_of_the_checkpoint(path: str, lora: bool) -> None:
    """As the engine's loader reads them; a tied head is in neither."""
    policy = adapted(path) if lora else load(path, torch.float32)
    with safe_open(Path(path) / "model.safetensors", "pt") as checkpoint:
        expected = {name: tuple(checkpoint.get_slice(name).get_shape()) for name in checkpoint.keys()}  # noqa: SIM118
    weights = dict(policy.weights())
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == expected
    assert not any(tensor.requires_grad for tensor in weights.values())


def test_weights_are_the_models_own_memory(tiny_qwen3: str) -> None:
    policy = load(tiny_qwen3, torch.float32)
    for name, tensor in policy.weights():
        assert tensor.data_ptr() == policy.model.get_parameter(name).data_ptr()


@pytest.mark.parametrize("path", MODELS, indirect=True)
def test_merging_gives_the_adapted_model_and_leaves_the_trained_weights(path: str, tmp_path: Path) -> None:
    policy = adapted(path)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    policy.export(tmp_path)
    for name, parameter in policy.model.named_parameters():
        assert torch.equal(parameter, before[name])
    exported = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(exported(IDS).logits, policy.model(IDS).logits, rtol=1e-4, atol=1e-4)
    plain = load(path, torch.float32).model
    assert (exported(IDS).logits - plain(IDS).logits).abs().max() > 1e-2
    merged = dict(policy.weights())
    assert all(torch.equal(merged[n], p) for n, p in exported.named_parameters() if n in merged)


def test_an_export_is_a_whole_model_folder(tiny_llama: str, tmp_path: Path) -> None:
    policy = load(tiny_llama, torch.float32)
    with torch.no_grad():
        policy.model.lm_head.weight.add_(1.0)
    policy.export(tmp_path)
    again = load(str(tmp_path), torch.float32)
    assert torch.equal(again.model(IDS).logits, policy.model(IDS).logits)
    assert again.tokenizer.encode("Who?") == policy.tokenizer.encode("Who?")


def test_only_adapters_are_trained_and_they_begin_at_zero(tiny_qwen3: str) -> None:
    policy = load(tiny_qwen3, torch.float32, lora=LoRA(r=2, target_modules=["q_proj", "v_proj"]))
    trained = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2 * 2  # layers, modules, A and B
    assert all(".lora_" in name for name in trained)
    torch.testing.assert_close(policy.model(IDS).logits, load(tiny_qwen3, torch.float32).model(IDS).logits)


def test_adapter_settings_that_cannot_work(tiny_qwen3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"policy\.lora\.target_modules.*nowhere"):
        load(tiny_qwen3, lora=LoRA(target_modules=["nowhere"]))
    with pytest.raises(ConfigError, match=r"policy\.lora\.r: given 0"):
        LoRA(r=0)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'jqlight\[lora\]'"):
        load(tiny_qwen3, lora=LoRA())


@pytest.mark.parametrize(
    ("field", "value"), [("micro_batch_tokens", 0), ("micro_batch_tokens", "all"), ("dtype", "f8")]
)
def test_settings_out_of_range_name_themselves(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"policy\.{field}: given"):
        PolicyConfig("twohop", **{field: value})
