"""How many tokens' activations fit in memory."""

import inspect
import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from jqlight.machine import GIB, free_memory
from jqlight.policy.batching import Budget

log = logging.getLogger(__name__)

_FREE_SHARE = 0.8  # the rest is for the head's chunks and for what the allocator cannot use
_SMALLEST, _GRAIN = 256, 1024
AUTOCAST_BYTES = 2.4
"""Bytes of a number in bf16-mixed: norms stay in float32. A group on an H100 took 1.16 times what 2 bytes would."""
_ROWS = 128  # of the matrix on which an optimizer's state is measured


def make_budget(
    model: PreTrainedModel,
    tokens: int | Literal["auto"],
    *,
    checkpointed: bool = False,
    pending: int = 0,
    copies: bool = True,
) -> Budget:
    """Budget of ``tokens``, or what the free memory allows.

    Auto is 0.8 of the free memory over :func:`token_bytes`, in whole thousands (1,024): a few megabytes more or less
    then rarely change the division into micro-batches, and with it the rounding, from run to run. On a GPU the memory
    that torch holds but does not use counts as free; the ranks of a machine without GPUs share its memory. Gradients
    that are not there yet and ``pending`` bytes (of the optimizer, see :func:`state_bytes`) are subtracted first.
    With ``copies`` every row has a copy of the prompt's keys and values.
    """
    copied = _copy_bytes(model, checkpointed) if copies else 0
    share = copied / token_bytes(model, checkpointed=checkpointed)
    if tokens != "auto":
        return Budget(tokens, share)
    pending += sum(p.nbytes for p in model.parameters() if p.requires_grad and p.grad is None)
    each = token_bytes(model, checkpointed=checkpointed)
    fits = int(max(0.0, _free_bytes(model.device) - pending) * _FREE_SHARE / each)
    budget = fits - fits % _GRAIN if fits > _GRAIN else max(_SMALLEST, fits)
    log.info("policy.micro_batch_tokens auto: %d (about %.1f GiB)", budget, budget * each / GIB)
    return Budget(budget, share)


def state_bytes(optimizer: torch.optim.Optimizer, dtype: torch.dtype) -> float:
    """Bytes that an optimizer of this kind keeps for a trained number of format ``dtype``.

    Measured on a small matrix; two moments are assumed of a class that cannot be made from its settings alone.
    """
    parameter = nn.Parameter(torch.zeros(_ROWS, _ROWS, dtype=dtype))
    parameter.grad = torch.zeros_like(parameter)
    takes = inspect.signature(type(optimizer)).parameters
    try:
        twin: Any = type(optimizer)
        built = twin([parameter], **{key: value for key, value in optimizer.defaults.items() if key in takes})
        built.step()
    except Exception:  # a class of the user's own may raise anything
        return 2.0 * max(4, dtype.itemsize)
    return _held(built) / parameter.numel()


def pending_state(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], *, copies: int) -> int:
    """Bytes that the optimizer's state of ``parameters`` will still take, each held ``copies`` times."""
    numbers = sum(parameter.numel() for parameter in parameters)
    total = numbers * state_bytes(optimizer, parameters[0].dtype) if numbers else 0
    return copies * max(0, int(total) - _held(optimizer))


def _held(optimizer: torch.optim.Optimizer) -> int:
    return sum(value.nbytes for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, a GPU's or the CPU's, could not give what it was asked for."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def token_bytes(model: PreTrainedModel, *, checkpointed: bool = False) -> float:
    """Estimate of the activations kept for one token's backward, in bytes; within a quarter of the measured ones.

    Per layer ``10 H + 6 A + 4 I`` numbers, for hidden size H, attention width A = heads x head size and feed-forward
    width I: the inputs of norms and residuals, queries, keys and values before and after rotation, attention output,
    gate, up, activation and their product. With gradient checkpointing H per layer remain, and one layer in full.
    """
    size = AUTOCAST_BYTES if torch.is_autocast_enabled(model.device.type) else model.dtype.itemsize
    return float(token_numbers(model.config, checkpointed=checkpointed) * size)


def token_numbers(model: PreTrainedConfig, *, checkpointed: bool) -> int:
    """Numbers of :func:`token_bytes`."""
    config = model.get_text_config(decoder=True)
    hidden, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
    inner *= getattr(config, "num_experts_per_tok", None) or 1
    layer = 10 * hidden + 6 * _attention_width(config) + 4 * inner
    return int(layers * hidden + layer if checkpointed else layers * layer)


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
    if device.type == "cuda":
        return free_memory(device) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    return free_memory(device) // ranks
