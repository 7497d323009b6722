import re
import shutil
from dataclasses import asdict

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import jqlight
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


def test_adapters_alone_are_what_peft_reads(tiny_llama, tmp_path, shell):
    from peft import PeftModel

    policy = trained(tiny_llama, lora=LoRA(r=2, alpha=4))
    checkpoint(tmp_path / "best.ckpt", policy)
    assert shell("export", "--ckpt", tmp_path / "best.ckpt", "--out", tmp_path / "a", "--adapters") == 0, shell.err
    assert f"PeftModel.from_pretrained(base_model, '{tmp_path / 'a'}')" in shell.out
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), tmp_path / "a")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, policy.model.eval()(ids).logits)


def test_a_model_that_was_trained_whole_has_no_adapters_to_write(tiny_llama, tmp_path, shell):
    checkpoint(tmp_path / "best.ckpt", trained(tiny_llama))
    out = ("export", "--ckpt", tmp_path / "best.ckpt", "--out", tmp_path / "a", "--adapters")
    assert shell(*out) == 2 and "--adapters: this model was trained whole" in shell.err
    assert shell(*out, "--push-to-hub", "me/model") == 2 and "leave out one of the two" in shell.err


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


def run_with_a_checkpoint(folder, base, **params):
    """A run's folder as a fit leaves it, with a validation at step 20 that the checkpoint is of."""
    journal = Journal(folder)
    facts = {"estimator": "GARL", "benchmark": "TwoHop", "scenario": "cold", "seed": "0", "model.scale": "batch"}
    journal.update(params={**facts, "model.samples": "16", "model.rollouts": "8", **params}, tags={"q": "0.5"})
    journal.log_text("config.yaml", "seed_everything: 0\n")
    for step, questions in ((20, 61), (40, 3)):
        journal.log_text(f"questions/step_{step:06d}.jsonl", '{"id": "q\u2028"}\n' * questions)
    journal.log_metrics({"val/maj_at_16": 0.25, "val/pass_at_1": 0.125, "train/success": 0.9}, 20)
    journal.log_metrics({"val/maj_at_16": 0.75}, 40)
    (folder / "checkpoints").mkdir()
    checkpoint(folder / "checkpoints" / "best.ckpt", trained(base))
    content = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    torch.save({**content, "global_step": 20}, folder / "checkpoints" / "best.ckpt")
    return folder / "checkpoints" / "best.ckpt"


def test_the_model_card_says_what_was_trained_and_how_it_scores(tiny_qwen3, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    export(run_with_a_checkpoint(tmp_path / "run", tiny_qwen3), tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", card, re.MULTILINE))
    expected = {"base model": tiny_qwen3.rsplit("/", 1)[-1], "estimator": "GARL", "q": "0.5", "scale": "batch"}
    expected |= {"data": "TwoHop cold", "optimizer steps": "20", "jqlight": jqlight.__version__}
    expected |= {r"val/maj_at_16": "0.2500", r"val/pass_at_1": "0.1250"}  # of the checkpoint's step, not the last
    assert {name: rows.get(name) for name in expected} == expected
    assert "val: 61 questions × 16 samples." in card
    assert "jqlight fit --config config.yaml" in card
    assert yaml.safe_load(card.split("---")[1]) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["jqlight"],
    }
    assert "# license:" in card
    assert str(tmp_path) not in card
    assert "hf_secret" not in card


def test_text_from_a_run_does_nothing_in_the_card(tiny_qwen3, tmp_path):
    hostile = "x | <script>alert(1)</script> [a](javascript:1) `b`\n---\nlicense: mit\n# c\x1b[2J"
    path = run_with_a_checkpoint(tmp_path / "run", tiny_qwen3, benchmark=hostile, seed=hostile)
    Journal(tmp_path / "run").update(run_name=hostile, tags={"q": hostile})
    export(path, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "<script" not in card
    assert "\x1b" not in card
    assert re.search(r"(?<!\\)\[a(?<!\\)\]\(", card) is None
    assert card.count("\n---\n") == 1
    assert [line for line in card.splitlines() if line.startswith("license")] == []
