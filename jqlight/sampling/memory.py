"""Memory of the engine's key-value cache, from the model's shape and the token budgets."""

import torch
from transformers import PretrainedConfig

from jqlight.machine import GIB, free_memory
from jqlight.sampling.engine import SamplerConfig

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Tokens of a cache block on a CPU, the smallest that vLLM's kernels take: prompts are shared in whole blocks, and its
# default of 128 computes most of a short prompt once per rollout (measured: sampling takes 28 to 34 % less time at 32).
# On a GPU vLLM chooses, 16 as a rule. One block it keeps for itself.
BLOCK_TOKENS = 32
# Largest part of free memory taken unless sampler.memory_gib says so; the rest is the trainer's.
CACHE_SHARE = 0.25


def kv_cache_bytes(
    model: PretrainedConfig, dtype: str, max_model_len: int, config: SamplerConfig, device: torch.device
) -> int:
    """Bytes of key-value cache for ``max_num_seqs`` sequences of ``max_model_len`` tokens.

    Capped at a quarter of the device's free memory, but never less than one whole sequence needs: with less room than
    sequences vLLM queues the others. ``config.memory_gib`` overrides all of it.
    """
    if config.memory_gib is not None:
        return int(config.memory_gib * GIB)
    per_sequence = -(-max_model_len // BLOCK_TOKENS) * BLOCK_TOKENS * cache_token_bytes(model, dtype)
    reserve = 2 * BLOCK_TOKENS * cache_token_bytes(model, dtype)
    wanted = config.max_num_seqs * per_sequence + reserve
    return max(per_sequence + reserve, min(wanted, int(CACHE_SHARE * free_memory(device))))


def cache_token_bytes(model: PretrainedConfig, dtype: str) -> int:
    """Bytes of the keys and values of one token in all layers; 0 for a recurrent model, whose state does not grow."""
    text = model.get_text_config()
    if not hasattr(text, "num_attention_heads"):
        return 0
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * size * BYTES[dtype])
