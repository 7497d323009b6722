import pytest
import torch
from transformers import GPT2Config, LlamaConfig, MambaConfig, Qwen3Config

from jqlight.sampling import SamplerConfig
from jqlight.sampling import memory as cache
from jqlight.sampling.memory import GIB, cache_token_bytes, kv_cache_bytes

CPU = torch.device("cpu")
LLAMA = LlamaConfig(num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2, hidden_size=64)


@pytest.fixture
def plenty(monkeypatch):
    monkeypatch.setattr(cache, "free_memory", lambda device: 1000 * GIB)


def test_bytes_per_token():
    assert cache_token_bytes(LLAMA, "float32") == 2 * 3 * 2 * 8 * 4  # keys and values, layers, heads, head size, bytes
    assert cache_token_bytes(LLAMA, "bfloat16") == 2 * 3 * 2 * 8 * 2


def test_bytes_per_token_without_grouped_heads_and_with_a_head_size_of_its_own():
    assert cache_token_bytes(GPT2Config(n_layer=2, n_head=4, n_embd=32), "float32") == 2 * 2 * 4 * 8 * 4
    qwen = Qwen3Config(num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=1, head_dim=64, hidden_size=32)
    assert cache_token_bytes(qwen, "float16") == 2 * 64 * 2


def test_a_recurrent_model_keeps_nothing_per_token():
    assert cache_token_bytes(MambaConfig(), "float32") == 0


def test_all_sequences_fit(plenty):
    per_token = cache_token_bytes(LLAMA, "float32")
    got = kv_cache_bytes(LLAMA, "float32", 200, SamplerConfig(max_num_seqs=10), CPU)
    assert got == (10 * 224 + 64) * per_token  # whole blocks of 32 tokens, two of them spare


def test_a_quarter_of_the_free_memory_is_the_cap(monkeypatch):
    monkeypatch.setattr(cache, "free_memory", lambda device: 4_000_000)
    assert kv_cache_bytes(LLAMA, "float32", 200, SamplerConfig(max_num_seqs=10**6), CPU) == 1_000_000


def test_one_sequence_always_fits(monkeypatch):
    monkeypatch.setattr(cache, "free_memory", lambda device: 1000)
    assert kv_cache_bytes(LLAMA, "float32", 256, SamplerConfig(), CPU) == (256 + 64) * cache_token_bytes(
        LLAMA, "float32"
    )


def test_the_setting_wins(plenty):
    assert kv_cache_bytes(LLAMA, "float32", 200, SamplerConfig(memory_gib=0.5), CPU) == GIB // 2


def test_free_memory_is_measured():
    assert 1 << 20 < cache.free_memory(CPU) < 1 << 50
