"""A byte-level tokenizer, with which any text round-trips and a token is a byte, and the fixtures' folder."""

from pathlib import Path

import pytest
from cli_fixtures import empty_store, shell, workplace
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jqlight.token_format import Thinking, TokenFormat

__all__ = ["empty_store", "shell", "workplace"]

SPECIAL = ["<eos>", "<think>", "</think>", "<|user|>", "<|assistant|>"]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    alphabet = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


@pytest.fixture
def token_format(tokenizer) -> TokenFormat:
    return TokenFormat(tokenizer, Thinking())


@pytest.fixture
def fixtures() -> Path:
    return Path(__file__).parent.parent / "fixtures"
