"""How many tokens' activations fit in memory."""

import logging
from typing import Literal

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from jqlight.machine import free_memory
from jqlight.policy.batching import Budget

log = logging.getLogger(__name__)

_FREE_SHARE = 0.5  # the rest is for gradients of the weights, attention buffers and the allocator
_SMALLEST, _LARGEST = 1024, 65536


def make_budget(model: PreTrainedModel, tokens: int | Literal["auto"], *, checkpointed: bool = False) -> Budget:
    """Budget of ``tokens``, or what the free memory allows.

    Auto is half of the free memory over :func:`token_bytes`, as a power of two in 1024..65536: a power of two, so that
    a few megabytes more or less do not change the division into micro-batches, and with it the rounding, from run to
    run. On a GPU the memory that torch holds but does not use counts as free. What training will still allocate (12
    bytes per trained parameter without .grad: the gradient and two moments) is subtracted first.
    """
    share = _copy_bytes(model, checkpointed) / token_bytes(model, checkpointed=checkpointed)
    if tokens != "auto":
        return Budget(tokens, share)
    trained = [p for p in model.parameters() if p.requires_grad]
    pending = sum(3 * max(4, p.element_size()) * p.numel() for p in trained if p.grad is None)
    each = token_bytes(model, checkpointed=checkpointed)
    room = max(0.0, _free_bytes(model.device) - pending) * _FREE_SHARE
    fits = max(_SMALLEST, min(_LARGEST, int(room / each)))
    budget = 1 << (fits.bit_length() - 1)
    log.info("policy.micro_batch_tokens auto: %d (about %.1f GiB)", budget, budget * each / 2**30)
    return Budget(budget, share)


def token_bytes(model: PreTrainedModel, *, checkpointed: bool = False) -> float:
    """Estimate of the activations kept for one token's backward, in bytes; within a quarter of the measured ones.

    Per layer ``10 H + 6 A + 4 I`` numbers, for hidden size H, attention width A = heads x head size and feed-forward
    width I: the inputs of norms and residuals, queries, keys and values before and after rotation, attention output,
    gate, up, activation and their product. With gradient checkpointing H per layer remain, and one layer in full.
    """
    config = model.config.get_text_config(decoder=True)
    hidden, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
    inner *= getattr(config, "num_experts_per_tok", None) or 1
    layer = 10 * hidden + 6 * _attention_width(config) + 4 * inner
    numbers = layers * hidden + layer if checkpointed else layers * layer
    return float(numbers * model.dtype.itemsize)


def _copy_bytes(model: PreTrainedModel, checkpointed: bool) -> int:
    """Bytes of one more copy of a prompt token's keys and values, as attention keeps them."""
    config = model.config.get_text_config(decoder=True)
    layers = 1 if checkpointed else config.num_hidden_layers
    return layers * 2 * _attention_width(config) * model.dtype.itemsize


def _attention_width(config: PreTrainedConfig) -> int:
    if not hasattr(config, "num_attention_heads"):  # a recurrent model, whose mixer is about as wide
        return int(config.hidden_size)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_attention_heads * size)


def _free_bytes(device: torch.device) -> int:
    """Free bytes; on a GPU the memory that torch holds but does not use is free."""
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    return free_memory(device) + idle
