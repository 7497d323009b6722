"""Fixtures for the whole suite: tiny models with random weights, saved once per session as Hugging Face folders."""

import os

# Before torch is imported: one thread is as fast for tiny models and keeps parallel runs from fighting over cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import string
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SPECIAL = ["<pad>", "<eos>", "<unk>", "<think>", "</think>"]
# Tokens of several characters that encoding never makes but a model can sample: text borders inside a token.
MERGED = ["END", "ND.", "th", "er", "is ", ". A"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Every printable ASCII character is a token, so that any English text round-trips; the thinking tags are one."""
    words = [*SPECIAL, *string.printable[:98], *MERGED]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>", model_max_length=1024
    )


def perturb(model: PreTrainedModel, seed: int = 0) -> None:
    """Random weights with norms and biases away from 1 and 0, and logits spread enough for tokens to differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.3 if "embed" in name or "wte" in name or "lm_head" in name else 0.15
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


def save_tiny(folder: Path, name: str) -> str:
    """Path of a saved tiny model (``qwen3`` and ``gpt2`` with tied embeddings, ``llama`` untied) and its tokenizer."""
    tokenizer = tiny_tokenizer()
    sizes = {"vocab_size": len(tokenizer), "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 1}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    block = {"hidden_size": 48, "intermediate_size": 96, "max_position_embeddings": 1024}
    models_by_name = {
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, **block, tie_word_embeddings=True)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**sizes, **heads, **block, tie_word_embeddings=False)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**sizes, n_embd=64, n_layer=2, n_head=2, n_positions=512)),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models_by_name[name]()
    perturb(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny Qwen3 (tied embeddings, grouped-query attention, head size 32)."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "qwen3", "qwen3")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny Llama (embeddings not tied)."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "llama", "llama")


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny GPT-2 (learned positions, tied embeddings, at most 512 tokens)."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "gpt2", "gpt2")
