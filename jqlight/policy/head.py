"""Log-probabilities of given tokens from hidden states, without keeping the logits of a large vocabulary."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LOGIT_BYTES = 128 << 20
"""Logits above so many bytes are computed in chunks of rows, forward and again in backward; on a GPU see below."""
GPU_SHARE = 64


def chunk_bytes(device: torch.device) -> int:
    """Bytes of logits that are computed at once: :data:`LOGIT_BYTES`, on a GPU a 64th of its memory where that is more.

    Every chunk reads and writes the whole gradient of the output embedding: with 151,936 tokens and 128 MiB that is
    once for 220 rows, which on a GPU takes longer than the products.
    """
    if device.type != "cuda":
        return LOGIT_BYTES
    return max(LOGIT_BYTES, int(torch.cuda.get_device_properties(device).total_memory) // GPU_SHARE)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Number format of log-softmax: float64 stays, everything else is computed in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def compute_dtype(hidden: Tensor) -> torch.dtype:
    """Number format of the head's matrix product: autocast's where it is on, else that of ``hidden``."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def token_log_probs(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """log p of ``targets`` in nats, (N,), float32 (float64 for a float64 model).

    Memory beyond inputs and gradients: at most three times ``max(B, V * itemsize)`` at any moment, and
    ``min(N * V * itemsize, B)`` kept for backward, for V the vocabulary and itemsize 4 (float64: 8), and B the
    :func:`chunk_bytes`. Above them backward computes the logits again, chunk by chunk.

    Args:
        hidden: hidden states that predict each target, (N, H).
        weight: the output embedding, (V, H).
        bias: the head's bias, (V,), or None.
        targets: token ids, (N,).
    """
    # torch has no annotations for Function.apply.
    log_probs: Tensor = _TokenLogProbs.apply(hidden, weight, bias, targets)  # type: ignore[no-untyped-call]
    return log_probs


def log_probs(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """log p over the whole vocabulary for a few hidden states, (N, V), by ordinary autograd."""
    dtype = compute_dtype(hidden)
    logits = functional.linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    return logits.to(accumulation_dtype(dtype)).log_softmax(-1)


class _TokenLogProbs(torch.autograd.Function):
    """``log_softmax(hidden @ weight.T + bias)[targets]`` with one buffer of logits."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        ctx.compute = compute_dtype(hidden)
        dtype = accumulation_dtype(ctx.compute)
        row_bytes = weight.shape[0] * dtype.itemsize
        ctx.rows = max(1, chunk_bytes(hidden.device) // row_bytes)
        normaliser = torch.empty(len(hidden), dtype=dtype, device=hidden.device)
        out = torch.empty_like(normaliser)
        with torch.autocast(hidden.device.type, enabled=False):
            matrix = weight.to(ctx.compute)
            logits = out[:0]
            for part in _chunks(len(hidden), ctx.rows):
                logits = _logits(hidden[part].to(ctx.compute), matrix, bias).to(dtype)
                normaliser[part] = logits.logsumexp(-1)
                out[part] = logits.gather(-1, targets[part, None])[:, 0] - normaliser[part]
        kept = logits if any(ctx.needs_input_grad) and 0 < len(hidden) <= ctx.rows else None
        ctx.save_for_backward(hidden, weight, bias, targets, normaliser, kept)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        hidden, weight, bias, targets, normaliser, kept = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        # Accumulated over chunks in the weight's own format, as .grad itself is over micro-batches.
        grad_weight = torch.zeros_like(weight) if need_weight else None
        grad_bias = torch.zeros_like(bias) if need_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            matrix = weight.to(ctx.compute)
            for part in _chunks(len(hidden), ctx.rows):
                rows = hidden[part].to(ctx.compute)
                logits = _logits(rows, matrix, bias).to(normaliser.dtype) if kept is None else kept
                grad = grads[0][part, None]
                # d log p_t / d logits = onehot(t) - softmax, in the buffer that held the logits
                slope = logits.sub_(normaliser[part, None]).exp_().mul_(-grad)
                slope.scatter_add_(-1, targets[part, None], grad)
                slope = slope.to(ctx.compute)
                if grad_hidden is not None:
                    grad_hidden[part] = (slope @ matrix).to(hidden.dtype)
                if grad_weight is not None:
                    if weight.dtype == ctx.compute:
                        grad_weight.addmm_(slope.T, rows)
                    else:
                        grad_weight += slope.T @ rows
                if grad_bias is not None:
                    grad_bias += slope.sum(0).to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None


def _logits(rows: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    return functional.linear(rows, matrix, None if bias is None else bias.to(matrix.dtype))


def _chunks(total: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, total)) for start in range(0, total, rows)]
