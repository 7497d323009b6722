"""How many tokens' activations fit in memory."""

import logging
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)

_FREE_SHARE = 0.5  # the rest is for gradients of the weights, attention buffers and the allocator
_FALLBACK_FREE = 4 << 30  # where the system does not say
_SMALLEST, _LARGEST = 1024, 65536


def auto_budget(model: PreTrainedModel) -> int:
    """Token budget from the free memory: half of it over :func:`token_bytes`, as a power of two in 1024..65536.

    A power of two, so that a few megabytes more or less do not change the division into micro-batches, and with it
    the rounding, from run to run. On a GPU the memory that torch holds but does not use counts as free; gradients and
    optimizer state that do not exist yet (12 bytes per trained parameter: .grad and two moments) are subtracted first.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    pending = sum(3 * max(4, p.element_size()) * p.numel() for p in trained if p.grad is None)
    room = max(0.0, _free_bytes(model.device) - pending) * _FREE_SHARE
    tokens = max(_SMALLEST, min(_LARGEST, int(room / token_bytes(model))))
    budget = 1 << (tokens.bit_length() - 1)
    log.info("policy.micro_batch_tokens auto: %d (about %.1f GiB)", budget, budget * token_bytes(model) / 2**30)
    return budget


def token_bytes(model: PreTrainedModel) -> float:
    """Estimate of the activations kept for one token's backward, in bytes.

    Per layer ``10 H + 6 A + 4 I`` numbers, for hidden size H, attention width A = heads x head size and feed-forward
    width I: the two norms' and residual inputs, queries, keys and values before and after rotation, attention output,
    gate, up, activation and their product. With gradient checkpointing the layer inputs remain (H), and one layer.
    """
    config = model.config.get_text_config(decoder=True)
    hidden, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
    inner *= getattr(config, "num_experts_per_tok", None) or 1
    return float(layers * (10 * hidden + 6 * _attention_width(config) + 4 * inner) * model.dtype.itemsize)


def copy_share(model: PreTrainedModel) -> float:
    """What a copy of one prompt token's keys and values costs beside a token of its own, in tokens (about 0.1)."""
    config = model.config.get_text_config(decoder=True)
    copied = config.num_hidden_layers * 2 * _attention_width(config) * model.dtype.itemsize
    return copied / token_bytes(model)


def _attention_width(config: PreTrainedConfig) -> int:
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_attention_heads * size)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return _FALLBACK_FREE
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024
