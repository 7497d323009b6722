import shutil
from dataclasses import asdict

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jqlight.cli.export import export, load_policy
from jqlight.policy import LoRA, Policy, PolicyConfig
from jqlight.tracking.journal import Journal


def checkpoint(path, policy):
    """What Lightning saves of a module whose ``policy`` this is."""
    state = {f"policy.{name}": tensor for name, tensor in policy.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"q": 0.5, "policy": asdict(policy.config)}}, path)


def trained(folder, **settings):
    policy = Policy(PolicyConfig(folder, **settings))
    policy.load()
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return policy


def test_an_exported_folder_loads_with_transformers_and_is_the_same_model(tiny_qwen3, tmp_path, shell):
    policy = trained(tiny_qwen3)
    checkpoint(tmp_path / "best.ckpt", policy)
    assert shell("export", "--ckpt", tmp_path / "best.ckpt", "--out", tmp_path / "model") == 0, shell.err
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, policy.model.eval()(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").eos_token == "<eos>"


def test_adapters_are_merged(tiny_llama, tmp_path):
    policy = trained(tiny_llama, lora=LoRA(r=2, alpha=4))
    checkpoint(tmp_path / "best.ckpt", policy)
    export(tmp_path / "best.ckpt", tmp_path / "model")
    merged = dict(policy.weights())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    base = AutoModelForCausalLM.from_pretrained(tiny_llama).state_dict()
    name = next(name for name in base if name.endswith("q_proj.weight"))
    torch.testing.assert_close(loaded[name], merged[name])
    assert not torch.equal(loaded[name], base[name])
    assert not any("lora" in name for name in loaded)


def test_the_policy_comes_back_with_its_settings(tiny_qwen3, tmp_path):
    policy = trained(tiny_qwen3, micro_batch_tokens=64)
    checkpoint(tmp_path / "best.ckpt", policy)
    assert load_policy(tmp_path / "best.ckpt").config == policy.config


def test_a_file_that_is_no_checkpoint(tmp_path, shell):
    (tmp_path / "x.ckpt").write_text("hello")
    assert shell("export", "--ckpt", tmp_path / "x.ckpt", "--out", tmp_path / "m") == 2
    assert "is no checkpoint of jqlight" in shell.err
    assert shell("export", "--ckpt", tmp_path / "none.ckpt", "--out", tmp_path / "m") == 2
    assert "does not exist" in shell.err


def test_a_folder_with_files_in_it_is_left_alone(tmp_path, shell):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert shell("export", "--ckpt", tmp_path / "x.ckpt", "--out", tmp_path / "full") == 2
    assert "exists and is not an empty folder" in shell.err


@pytest.mark.parametrize("folder", ["runs/a/checkpoints", "elsewhere/a/checkpoints"])
def test_a_model_given_relative_to_where_the_run_was_started_is_found_from_elsewhere(
    tiny_qwen3, workplace, monkeypatch, shell, folder
):
    shutil.copytree(tiny_qwen3, workplace / "models" / "tiny")
    policy = trained("models/tiny")
    (workplace / folder).mkdir(parents=True)
    checkpoint(workplace / folder / "best.ckpt", policy)
    Journal(workplace / folder / "..").update(directory=str(workplace))
    (workplace / "other").mkdir()
    monkeypatch.chdir(workplace / "other")
    assert shell("export", "--ckpt", f"../{folder}/best.ckpt", "--out", "x") == 0, shell.err
    shutil.rmtree(workplace / "models")
    assert shell("export", "--ckpt", f"../{folder}/best.ckpt", "--out", "y") == 2
    assert f"'models/tiny' is no folder in {workplace / 'other'}" in shell.err
