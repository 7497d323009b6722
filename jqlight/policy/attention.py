"""Attention of continuations behind a shared prompt, in two parts that are merged by log-sum-exp.

The queries of all rows are one sequence against the prompt's keys and values, which are neither copied for a row nor
expanded over query heads, and each row attends causally to its own tokens. With outputs ``o_i`` and log-sum-exps
``l_i`` of the two parts the attention over both is ``sum_i o_i exp(l_i - l)``, ``l = log(exp l_1 + exp l_2)``. Its
gradient is each part's own backward, given the merged output and log-sum-exp.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "jqlight_two_part"
"""Attention implementation of a model whose prompts are shared in two parts; torch's own without such a prompt."""

_PROMPT = "jqlight_prompt"
_EFFECTS = ("softcap", "s_aux", "sliding_window", "position_bias")
_KERNEL_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}  # half precision differs by about 0.01
_ops = torch.ops.aten


class UnsuitableError(Exception):
    """Attention in this architecture is more than a softmax over keys, so that it has no two parts."""


class PromptBeside(DynamicLayer):
    """A layer's keys and values of a prompt, handed to :func:`attend` beside those of the continuations.

    Args:
        keys: of the prompt, (1, key heads, P, size).
        values: the same shape.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers' own
        self._prompt = (keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The continuations' own, which know their prompt: a model hands nothing else on to its attention."""
        setattr(key_states, _PROMPT, self._prompt)
        return key_states, value_states

    def get_seq_length(self) -> int:
        """P, from which positions count on."""
        return self._prompt[0].shape[-2]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what a mask would be for, a row's own tokens."""
        return query_length, self.get_seq_length()


def why_not_two_parts(model: PreTrainedModel) -> str | None:
    """What keeps the model's attention behind a prompt from being computed in two parts; None if nothing is known.

    Whether the values agree is for a measurement to say.
    """
    if model.config._attn_implementation not in ("sdpa", NAME) or not model._can_set_attn_implementation():
        return f"attention of its own ({model.config._attn_implementation})"
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return f"attn_logit_softcapping = {config.attn_logit_softcapping}"
    if any(name.endswith("sinks") for name, _ in model.named_parameters()):
        return "attention sinks"
    kind = model.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype
    if kind != "cpu" and (kind != "cuda" or dtype.itemsize > 2):
        return f"{dtype} on {kind}, for which torch has no flash attention"
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(kind, enabled=False):
        return why_not_kernel(model.device, dtype, size)


def why_not_kernel(device: torch.device, dtype: torch.dtype, size: int) -> str | None:
    """What is wrong with :class:`TwoParts` on this device for heads of ``size``; None if nothing.

    torch's flash kernels are private: another release may change them, and a wrong gradient would be seen nowhere.
    Output and gradients of a few random rows are compared with those of the formula, written out in the same format.
    """
    generator = torch.Generator(device).manual_seed(0)
    shapes = (2, 4, 3), (2, 2, 3), (2, 2, 3), (1, 2, 5), (1, 2, 5)
    leaves = [
        torch.randn(*shape, size, generator=generator, device=device, dtype=dtype).requires_grad_() for shape in shapes
    ]
    query, *pairs = leaves
    keys, values = (_expand(torch.cat([pairs[i + 2].expand(2, -1, -1, -1), pairs[i]], 2), query) for i in (0, 1))
    later = torch.ones(3, 8, dtype=torch.bool, device=device).triu(6)
    wanted = (size**-0.5 * query @ keys.mT).masked_fill(later, -torch.inf).softmax(-1) @ values
    try:
        output: Tensor = TwoParts.apply(*leaves, size**-0.5)  # type: ignore[no-untyped-call]  # torch's own
        found, right = ((one, *torch.autograd.grad(one.square().sum(), leaves)) for one in (output, wanted))
    except (AttributeError, RuntimeError) as error:
        return f"no flash attention on {device.type}: {str(error).splitlines()[0]}"
    gap = max(((a - b).norm() / b.norm()).item() for a, b in zip(found, right, strict=True))
    return None if gap < _KERNEL_TOLERANCE.get(dtype, 0.05) else f"a flash attention off by {gap:.1e} on {device.type}"


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """transformers' attention function: in two parts behind a prompt, else torch's own.

    Args:
        module: the attention layer.
        query: (n, heads, L, size).
        key: (n, key heads, L, size), with the prompt that :class:`PromptBeside` has put beside it.
        value: as ``key``.
        attention_mask: None for continuations, which are causal.
        options: of the architecture.

    Returns:
        (n, L, heads, size), and None for the weights, which are not kept.

    Raises:
        UnsuitableError: behind a prompt, with a mask or an effect that two parts do not have.
    """
    prompt = getattr(key, _PROMPT, None)
    if prompt is None:
        output: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return output
    effects = [name for name in _EFFECTS if options.get(name) is not None]
    if attention_mask is not None or effects or options.get("dropout"):
        raise UnsuitableError(f"attention with {', '.join(effects) or 'a mask or dropout'}")
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    tensors = [query, key, value, *prompt]
    kind = query.device.type
    if torch.is_autocast_enabled(kind):  # as scaled_dot_product_attention does
        tensors = [tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors]
    merged: Tensor = TwoParts.apply(*tensors, scale)  # type: ignore[no-untyped-call]  # torch's own
    return merged.transpose(1, 2).contiguous(), None


class TwoParts(torch.autograd.Function):
    """softmax(scale q [K, k]^T) [V, v], causal in k: the prompt's K and V are the same for every row."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, scale: float
    ) -> Tensor:
        """Attention of n rows.

        Args:
            ctx: autograd's.
            query: (n, heads, L, size).
            key: (n, key heads, L, size); ``heads`` is a multiple of ``key heads``.
            value: as ``key``.
            keys: the prompt's, (1, key heads, P, size).
            values: as ``keys``.
            scale: factor of the products.

        Returns:
            (n, heads, L, size) in the inputs' format.
        """
        folded = _fold(query, key.shape[1])
        first = _forward(folded, keys, values, scale, causal=False)
        second = _forward(query, _expand(key, query), _expand(value, query), scale, causal=True)
        log_first = _unfold(first.log_sum[..., None], query)[..., 0]
        log_sum = torch.logaddexp(log_first, second.log_sum)
        parts = (_unfold(first.output, query), log_first), (second.output, second.log_sum)
        merged = sum(output * (part - log_sum).exp()[..., None] for output, part in parts)
        output = torch.as_tensor(merged).to(query.dtype)
        ctx.save_for_backward(query, key, value, keys, values, output, log_sum, *first.state, *second.state)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key, value and of the prompt's keys and values."""
        query, key, value, keys, values, output, log_sum, *state = ctx.saved_tensors
        half, heads = len(state) // 2, key.shape[1]
        gradient = gradients[0].contiguous()
        folded = [_fold(tensor, heads) for tensor in (gradient, query, output, log_sum[..., None])]
        first = _Part(folded[2], folded[3][..., 0], tuple(state[:half]))
        second = _Part(output, log_sum, tuple(state[half:]))
        to_first, to_keys, to_values = _backward(folded[0], folded[1], keys, values, first, ctx.scale, causal=False)
        own = _expand(key, query), _expand(value, query)
        to_query, to_key, to_value = _backward(gradient, query, *own, second, ctx.scale, causal=True)
        to_query = to_query + _unfold(to_first, query)
        return to_query, _collect(to_key, heads), _collect(to_value, heads), to_keys, to_values, None


class _Part(NamedTuple):
    """One part's result: output (b, h, L, size), log-sum-exp (b, h, L), and what the kernel's backward needs."""

    output: Tensor
    log_sum: Tensor
    state: tuple[Tensor, ...]


def _forward(query: Tensor, key: Tensor, value: Tensor, scale: float, *, causal: bool) -> _Part:
    if query.device.type == "cpu":
        output, log_sum = _ops._scaled_dot_product_flash_attention_for_cpu(
            *_single(query, key, value), 0.0, causal, scale=scale
        )
        return _Part(output, log_sum, ())
    tensors = [tensor.transpose(1, 2) for tensor in (query, key, value)]
    lengths = query.shape[2], key.shape[2]
    output, log_sum, *state, _ = _ops._flash_attention_forward(
        *tensors, None, None, *lengths, 0.0, causal, False, scale=scale
    )
    return _Part(output.transpose(1, 2), log_sum[..., : lengths[0]], tuple(state))


def _backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, part: _Part, scale: float, *, causal: bool
) -> tuple[Tensor, ...]:
    if query.device.type == "cpu":
        found = _ops._scaled_dot_product_flash_attention_for_cpu_backward(
            *_single(gradient, query, key, value, part.output), part.log_sum, 0.0, causal, scale=scale
        )
        return tuple(tensor.to(query.dtype) for tensor in found)
    tensors = [tensor.transpose(1, 2) for tensor in (gradient, query, key, value, part.output)]
    lengths = query.shape[2], key.shape[2]
    found = _ops._flash_attention_backward(
        *tensors, part.log_sum.contiguous(), None, None, *lengths, 0.0, causal, *part.state, scale=scale
    )
    return tuple(tensor.transpose(1, 2) for tensor in found)


def _single(*tensors: Tensor) -> list[Tensor]:
    """Half precision as float32, so that a part is not rounded before the merge; a GPU has no such kernel."""
    return [tensor.float() if tensor.dtype.itemsize < 4 else tensor for tensor in tensors]


def _fold(tensor: Tensor, heads: int) -> Tensor:
    """(n, heads x g, L, s) as one sequence for each key head, (1, heads, g x n x L, s)."""
    n, _, length, size = tensor.shape
    return tensor.view(n, heads, -1, length, size).permute(1, 2, 0, 3, 4).reshape(1, heads, -1, size)


def _unfold(tensor: Tensor, like: Tensor) -> Tensor:
    """The reverse of :func:`_fold`, to the rows, heads and length of ``like``."""
    n, all_heads, length, _ = like.shape
    parts = tensor.view(tensor.shape[1], -1, n, length, tensor.shape[-1])
    return parts.permute(2, 0, 1, 3, 4).reshape(n, all_heads, length, -1)


def _expand(tensor: Tensor, query: Tensor) -> Tensor:
    """Keys or values once for each of the query's heads."""
    return tensor.repeat_interleave(query.shape[1] // tensor.shape[1], 1)


def _collect(gradient: Tensor, heads: int) -> Tensor:
    """The gradient of what :func:`_expand` has repeated."""
    n, _, length, size = gradient.shape
    return gradient.view(n, heads, -1, length, size).sum(2)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
