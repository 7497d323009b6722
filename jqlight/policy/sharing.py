"""Which architectures can share a prompt's keys and values, and how: decided by their config, then by a measurement."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from jqlight.policy import attention
from jqlight.policy.batching import Rows
from jqlight.policy.forward import Network, Route

log = logging.getLogger(__name__)

_CHECK_TOKENS = 64  # at the end of the longest row, where positions and windows differ most; few logits
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}  # root mean square, nats
_HALF_TOLERANCE = 0.1  # bfloat16 and float16 differ by about 0.03 between kernels on trained models
_HEAD_SETTINGS = {"final_logit_softcapping": None, "logit_scale": None, "logits_scaling": 1, "lm_head_multiplier": 1}


def why_not_shared(model: PreTrainedModel) -> str | None:
    """What in the architecture keeps continuations from using a prompt's plain key-value cache; None if nothing."""
    config = model.config.get_text_config(decoder=True)
    if getattr(model, "_is_stateful", False):
        return "a recurrent state"
    types = getattr(config, "layer_types", None)
    others = sorted(set(types or []) - {"full_attention"})
    if others:
        return f"layers of type {', '.join(others)}"
    for name in () if types else ("sliding_window", "attention_chunk_size"):
        if getattr(config, name, None) is not None:
            return f"{name} = {getattr(config, name)}"
    return None


def why_not_compact(model: PreTrainedModel) -> str | None:
    """What the model does between its hidden states and its logits besides a linear map; None if nothing."""
    config = model.config.get_text_config(decoder=True)
    for name, neutral in _HEAD_SETTINGS.items():
        value = getattr(config, name, neutral)
        if value not in (None, neutral):
            return f"{name} = {value}"
    if type(model.get_output_embeddings()) is not nn.Linear:
        return "an output head that is not linear"
    return None


def choose_route(model: PreTrainedModel, prompt_ids: Sequence[int], rows: Rows, *, share: bool) -> Route | None:
    """The fastest route whose log-probabilities agree with the plain model on this group; logs one line per refusal.

    The reference is the model's own logits at the last 64 tokens of the longest row; all before them is its prompt.
    None when the group is too short to tell: one token behind the prompt says nothing about a cache.
    """
    longest = max(range(len(rows.lengths)), key=lambda row: rows.lengths[row], default=0)
    if not rows.lengths or rows.lengths[longest] < 2:
        return None
    row = rows.tokens[longest, : rows.lengths[longest]]
    split = max(0, len(row) - _CHECK_TOKENS)
    ids = torch.cat([torch.tensor(list(prompt_ids), dtype=torch.long, device=row.device), row[:split]])
    tokens = row[None, split:]
    reasons = why_not_shared(model) if share else "no wish to share", why_not_compact(model)
    if reasons[0] and share:
        log.warning("Prompts are not shared by their rollouts: the model has %s.", reasons[0])
    if reasons[1]:
        log.info("Log-probabilities are taken from the model's full logits: it has %s.", reasons[1])
    first = Route(share=reasons[0] is None, compact=reasons[1] is None)
    routes = [first, first._replace(share=False), Route(share=False, compact=False)]
    if first.share and (apart := attention.why_not_two_parts(model)):
        log.info("Rows attend to copies of a shared prompt: the model has %s.", apart)
    elif first.share:
        routes.insert(0, first._replace(two_parts=True))
    with torch.no_grad():
        reference = _log_probs(model, Route(share=False, compact=False), ids, tokens)
        for route in dict.fromkeys(routes):
            gap = _gap(model, route, ids, tokens, reference)
            if gap <= _tolerance(reference, model):
                break
            level = logging.INFO if route.two_parts else logging.WARNING
            log.log(level, "%s differs from the plain model by %.1e nats per token and is not used.", route, gap)
    torch.clear_autocast_cache()  # for the reason that Group._score gives
    return route


def _gap(model: PreTrainedModel, route: Route, prompt_ids: Tensor, tokens: Tensor, reference: Tensor) -> float:
    """Root mean square of what a route's log-probabilities are off by; infinite where it does not run at all."""
    if route.two_parts:
        model.set_attn_implementation(attention.NAME)  # for plain passes the same as before
    try:
        found = _log_probs(model, route, prompt_ids, tokens)
    except attention.UnsuitableError as error:
        log.info("Rows attend to copies of a shared prompt: the model has %s.", error)
        return float("inf")
    return (found - reference).double().square().mean().sqrt().item()


def _log_probs(model: PreTrainedModel, route: Route, prompt_ids: Tensor, tokens: Tensor) -> Tensor:
    """log p of one row's tokens but the first, along ``route``."""
    network = Network(model, route)
    scored = torch.ones_like(tokens, dtype=torch.bool)
    scored[:, 0] = False
    if route.share:
        return network.continuations(tokens, scored, network.prompt(prompt_ids))
    return network.sequences(prompt_ids, tokens, scored)


def _tolerance(reference: Tensor, model: PreTrainedModel) -> float:
    if model.dtype.itemsize < 4 or torch.is_autocast_enabled(reference.device.type):
        return _HALF_TOLERANCE
    return _TOLERANCE[reference.dtype]
