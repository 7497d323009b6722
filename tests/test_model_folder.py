"""A model folder that is not whole is one sentence on file, fault and way out; nothing is filled in at random."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jqlight import model_folder
from jqlight.errors import ConfigError
from jqlight.hub import BUNDLED
from jqlight.policy import Policy, PolicyConfig
from jqlight.sampling import SamplerConfig, build_sampler
from jqlight.token_format import Thinking

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1462056\n"
PLAIN = Thinking(start="", separator="")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled model that may be damaged."""
    return Path(shutil.copytree(BUNDLED["twohop"], tmp_path / "model", copy_function=shutil.copyfile))


def in_two(folder: Path) -> list[Path]:
    """The weights in two files with an index, as large models have them."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files, index = [folder / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)], {}
    for i, file in enumerate(files):
        part = dict(list(weights.items())[i::2])
        save_file(part, file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return files


def as_pickle(folder: Path) -> Path:
    """The weights as older models have them."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder / "pytorch_model.bin"


def unindexed(folder: Path) -> None:
    """The second file is there, but the index does not name it."""
    index = in_two(folder)[0].with_name("model.safetensors.index.json")
    weights = {name: file for name, file in json.loads(index.read_text())["weight_map"].items() if "00001-" in file}
    change(index, weight_map=weights)


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def rename(folder: Path, prefix: str) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({prefix + name: weight for name, weight in weights.items()}, folder / "model.safetensors")


def without(folder: Path, *names: str) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({n: w for n, w in weights.items() if n not in names}, folder / "model.safetensors")


def put(folder: Path, name: str, weight: torch.Tensor) -> None:
    weights = {**load_file(folder / "model.safetensors"), name: weight}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def read_all(folder: Path) -> None:
    """What a command reads before it starts an engine."""
    policy = Policy(PolicyConfig(str(folder), thinking=PLAIN))
    config = SamplerConfig(engine="transformers", max_thinking_tokens=4, max_answer_tokens=4)
    build_sampler(config, model_path=policy.path, dtype="float32", token_format=policy.format, max_prompt_tokens=8)


DAMAGE = {
    "config cut": (lambda m: (m / "config.json").write_text('{"model_type": "qwen3",'), "config.json is cut off"),
    "config a list": (lambda m: (m / "config.json").write_text("[]"), r"config.json must hold an object, given \[\]"),
    "config no text": (lambda m: (m / "config.json").write_bytes(b"\xff\xfe{"), "config.json is cut off or damaged"),
    "config a pointer": (lambda m: (m / "config.json").write_text(LFS), "config.json is a Git LFS pointer"),
    "kind unknown": (lambda m: change(m / "config.json", model_type="qwen9"), "model_type 'qwen9', which is none that"),
    "no kind": (lambda m: change(m / "config.json", model_type=None), "model_type None, which is none that"),
    "own code": (
        lambda m: change(m / "config.json", model_type="x", auto_map={"AutoConfig": "a.B"}),
        "code of its own",
    ),
    "settings at odds": (
        lambda m: change(m / "config.json", num_hidden_layers=5),
        "config.json cannot be read .*layer",
    ),
    "no language model": (lambda m: change(m / "config.json", model_type="vit"), "cannot be read by transformers"),
    "tokenizer a pointer": (lambda m: (m / "tokenizer.json").write_text(LFS), "tokenizer.json is a Git LFS pointer"),
    "tokenizer cut": (lambda m: cut(m / "tokenizer.json", 500), "tokenizer.json is cut off"),
    "no tokenizer": (lambda m: [f.unlink() for f in m.glob("token*")], "has no tokenizer"),
    "ends cut": (lambda m: (m / "generation_config.json").write_text("{"), "generation_config.json is cut off"),
    "weights a pointer": (
        lambda m: (m / "model.safetensors").write_text(LFS),
        "model.safetensors is a Git LFS pointer",
    ),
    "weights cut": (lambda m: cut(m / "model.safetensors", 100_000), "model.safetensors is cut off"),
    "header cut": (lambda m: cut(m / "model.safetensors", 1000), "model.safetensors is cut off"),
    "weights empty": (lambda m: cut(m / "model.safetensors", 0), "model.safetensors is cut off"),
    "a part gone": (lambda m: in_two(m)[1].unlink(), "model-00002-of-00002.safetensors"),
    "a part a pointer": (lambda m: in_two(m)[1].write_text(LFS), "model-00002-of-00002.safetensors is a Git LFS"),
    "a part cut": (lambda m: cut(in_two(m)[0], 9000), "model-00001-of-00002.safetensors is cut off"),
    "index cut": (lambda m: in_two(m) and cut(m / "model.safetensors.index.json", 90), "index.json is cut off"),
    "pickle a pointer": (lambda m: as_pickle(m).write_text(LFS), "pytorch_model.bin is a Git LFS pointer"),
    "pickle cut": (lambda m: cut(as_pickle(m), 90_000), "pytorch_model.bin is cut off"),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "holds no weights"),
    "too wide": (
        lambda m: change(m / "config.json", intermediate_size=300),
        r"do not fit its config.json \(model.layers.0.mlp.down_proj.weight is 96x288, by config.json 96x300",
    ),
    "a weight missing": (
        lambda m: without(m, "model.norm.weight"),
        "weights are missing in .*: model.norm.weight; training would start from random",
    ),
    "a part not in the index": (unindexed, "weights are missing in .* and 13 more"),
    "head missing": (
        lambda m: change(m / "config.json", tie_word_embeddings=False),
        "missing in .*: lm_head.weight",
    ),
    "compiled": (lambda m: rename(m, "_orig_mod."), "begin with '_orig_mod.', as torch.compile saves them"),
    "parallel": (lambda m: rename(m, "module."), "begin with 'module.', as DistributedDataParallel"),
    "adapted": (lambda m: rename(m, "base_model.model."), "begin with 'base_model.model.', as PEFT"),
    "four bits": (
        lambda m: change(m / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "are quantised .quantization_config in config.json: bitsandbytes., allowed are plain ones",
    ),
    "other names": (lambda m: rename(m, "net."), r"the file has others: net.model.embed_tokens.weight"),
    "adapter alone": (lambda m: (m / "adapter_config.json").write_text("{}"), "holds an adapter of PEFT"),
    "more layers": (
        lambda m: change(m / "config.json", num_hidden_layers=2, layer_types=["full_attention"] * 2),
        r"of more layers than its config.json describes \(model.layers.2.input_layernorm.weight",
    ),
    "adapter inside": (
        lambda m: put(m, "model.layers.0.self_attn.q_proj.lora_A.default.weight", torch.ones(4, 96)),
        "hold an adapter beside those that it changes",
    ),
    "not a number": (
        lambda m: put(m, "model.norm.weight", torch.full((96,), torch.nan)),
        "the weight model.norm.weight in .* holds NaN or infinity",
    ),
    "infinite": (lambda m: put(m, "model.norm.weight", torch.full((96,), torch.inf)), "holds NaN or infinity"),
    "integers": (
        lambda m: put(m, "model.norm.weight", torch.ones(96, dtype=torch.int8)),
        "model.safetensors holds model.norm.weight as I8, without a quantization_config",
    ),
    "eight bits": (
        lambda m: put(m, "model.norm.weight", torch.ones(96).to(torch.float8_e4m3fn)),
        "model.norm.weight as F8_E4M3, without",
    ),
    "rows fewer than tokens": (
        lambda m: change(m / "config.json", vocab_size=3),
        "'</think>' as id 3.*3 embedding rows",
    ),
    "no rows": (lambda m: change(m / "config.json", vocab_size=0), "0 embedding rows .vocab_size in its config.json"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_folder_that_is_not_whole_is_refused_in_a_sentence(name: str, folder: Path) -> None:
    damage, message = DAMAGE[name]
    damage(folder)
    with pytest.raises(ConfigError, match=message) as refusal:
        read_all(folder)
    assert str(refusal.value).startswith("policy.")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("split", [in_two, as_pickle])
def test_weights_in_other_files_are_whole_too(split, folder: Path) -> None:
    split(folder)
    read_all(folder)


def test_a_whole_folder_passes_and_what_lies_beside_it_does_not_matter(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_text(LFS)
    (folder / "notes.json").write_text("{")
    read_all(folder)


def test_tensors_that_the_model_has_no_use_for_are_told(folder: Path, caplog) -> None:
    put(folder, "score.weight", torch.ones(2, 96))
    with caplog.at_level("WARNING", "jqlight"):
        read_all(folder)
    assert [m for m in caplog.messages if f"1 tensors in {folder} are left out" in m and "score.weight" in m]
    assert model_folder.check_weights(str(folder)).unused == 1


@pytest.mark.parametrize("split", [lambda folder: None, in_two])
def test_numbers_are_checked_for_an_engine_that_reads_them_by_itself(split, folder: Path) -> None:
    split(folder)
    model_folder.check_numbers(str(folder))
    model_folder.check_numbers("org/a-model-of-the-hub")
    file = max(folder.glob("*.safetensors"))
    weights = load_file(file)
    name = max(weights)
    weights[name][..., 0] = torch.nan
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=f"the weight {name} in .* holds NaN or infinity"):
        model_folder.check_numbers(str(folder))


def test_weights_are_checked_without_being_read(folder: Path) -> None:
    model = model_folder.load_model(str(folder), device_map="meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize("load", [lambda path: Policy(PolicyConfig(path)).load(), model_folder.load_model])
def test_no_reader_of_weights_fills_in_random_numbers(load, folder: Path) -> None:
    without(folder, "model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ConfigError, match=r"missing in .*: model.layers.1.mlp.up_proj.weight"):
        load(str(folder))


def test_a_head_of_its_own_beside_a_tied_flag_is_kept(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    head = weights["model.embed_tokens.weight"] * 1.5
    save_file({**weights, "lm_head.weight": head}, folder / "model.safetensors")
    model = model_folder.load_model(str(folder))
    assert torch.equal(model.lm_head.weight, head)
    assert torch.equal(model.model.embed_tokens.weight, weights["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("generation", "config", "ends"),
    [
        (None, [0, 1], (1, 0)),
        ({"eos_token_id": 3}, [0, 1], (1, 3, 0)),
        ({"eos_token_id": [3, 1]}, 4, (1, 3, 4)),
        ({}, None, (1,)),
        ({"eos_token_id": [44, 45, -1]}, 1, (1, 44)),  # the model has 45 rows: others it never writes
    ],
)
def test_ends_are_what_tokenizer_and_both_configs_name(generation, config, ends, folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    change(folder / "config.json", eos_token_id=config)
    form = Policy(PolicyConfig(str(folder), thinking=PLAIN)).format
    assert form.eos_ids == ends
    assert form.decode_answer([10, *ends, 11]) == form.decode([10, 11])


def test_the_default_end_of_a_kind_of_model_ends_nothing(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    config = {"model_type": "llama", "vocab_size": 45}  # whose class has eos_token_id 2
    (folder / "config.json").write_text(json.dumps(config))
    assert Policy(PolicyConfig(str(folder), thinking=PLAIN)).format.eos_ids == (1,)


SAMPLING = {"temperature": 0.9, "top_p": 0.6, "eos_token_id": 1}


@pytest.mark.parametrize(
    ("given", "exported"),
    [
        (SAMPLING, SAMPLING | {"do_sample": True}),
        (SAMPLING | {"do_sample": False}, SAMPLING | {"do_sample": True}),
        ({"early_stopping": True, "length_penalty": 2.0, "eos_token_id": [1, 3]}, {"eos_token_id": [1, 3]}),
        ({"pad_token_id": -1, "eos_token_id": 1}, {"eos_token_id": 1}),
        ({"top_k": 5, "do_sample": True}, {"top_k": 5, "do_sample": True}),
    ],
)
def test_settings_of_generation_that_transformers_would_not_save_do_not_keep_a_model_from_its_export(
    given, exported, folder: Path, tmp_path: Path
) -> None:
    (folder / "generation_config.json").write_text(json.dumps(given))
    policy = Policy(PolicyConfig(str(folder), thinking=PLAIN))
    policy.load()
    policy.export(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert {name: value for name, value in saved.items() if name != "transformers_version"} == exported
    Policy(PolicyConfig(str(tmp_path / "out"), thinking=PLAIN)).load()
