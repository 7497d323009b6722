"""The transformers engine: plain batched decoding, for machines where vLLM does not install."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from jqlight.errors import EngineError
from jqlight.machine import free_memory
from jqlight.model_folder import load_model
from jqlight.sampling.engine import Completion, Decoding, Request, SamplerConfig, Stop, check_lengths
from jqlight.sampling.memory import cache_token_bytes
from jqlight.token_format import TokenFormat

CPU = torch.device("cpu")
_FREE_SHARE = 0.8


class TransformersEngine:
    """A transformers model of its own behind the :class:`~jqlight.sampling.Engine` protocol.

    Prompts are padded on the left, each distinct prompt runs through the model once, and a row that has ended leaves
    the batch. Every request draws from its own generator by inverse transform, so its tokens do not depend on the
    batch. Log-probs are those of the model itself (float32, before temperature and truncation).

    Attributes:
        model: the engine's copy of the model, in evaluation mode.
        max_model_len: longest prompt and completion together, in tokens.
        max_num_seqs: most rows decoded at once; fewer where they do not fit in the free memory.
    """

    def __init__(
        self,
        model_path: str,
        dtype: str,
        max_model_len: int,
        config: SamplerConfig,
        token_format: TokenFormat,
        device: torch.device = CPU,
    ) -> None:
        self.max_model_len = max_model_len
        self.max_num_seqs = config.max_num_seqs
        self.model = load_frozen(model_path, dtype, device)
        self._token_format = token_format

    def generate(self, requests: Sequence[Request], stop: Stop, decoding: Decoding) -> list[Completion]:
        """One completion per request, in order.

        Raises:
            EngineError: a request does not fit in ``max_model_len``.
        """
        if not requests:
            return []
        check_lengths(requests, self.max_model_len)
        order = sorted(range(len(requests)), key=lambda i: (len(requests[i].prompt_ids), tuple(requests[i].prompt_ids)))
        completions: dict[int, Completion] = {}
        rows = self._rows(max(len(request.prompt_ids) + request.max_tokens for request in requests))
        for start in range(0, len(order), rows):
            chunk = order[start : start + rows]
            batch = _Batch(self.model, [requests[i] for i in chunk])
            while batch.rows:
                ids = batch.step(decoding)
                batch.keep([not self._ends(row, stop) for row in batch.rows], ids)
            completions.update(zip(chunk, batch.completions, strict=True))
        return [completions[i] for i in range(len(requests))]

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy ``weights`` (checkpoint names) into the engine's model; there is no prefix cache to drop.

        Raises:
            EngineError: a weight is not one of the model's, or one of the model's weights is missing.
        """
        targets = self.model.state_dict(keep_vars=True)
        written: set[int] = set()
        with torch.no_grad():
            for name, weight in weights:
                if name not in targets:
                    raise EngineError(f"sampler.engine: transformers has no weight {name} to update")
                targets[name].copy_(weight)
                written.add(targets[name].data_ptr())
        missing = [n for n, p in self.model.named_parameters() if p.data_ptr() not in written]
        if missing:
            raise EngineError(f"weights missing in the update of the sampling engine: {', '.join(missing[:5])}")

    def _rows(self, tokens: int) -> int:
        """How many rows of ``tokens`` tokens may be decoded at once, by the memory that is free now."""
        config = self.model.config.get_text_config()
        # A layer's cache is copied when it grows, and three rows of probabilities are float64.
        dtype = str(self.model.dtype).removeprefix("torch.")
        each = 1.5 * tokens * cache_token_bytes(config, dtype) + 3 * 8 * config.vocab_size
        return max(1, min(self.max_num_seqs, int(_FREE_SHARE * free_memory(self.model.device) / each)))

    def sleep(self) -> None:
        """Nothing: between two calls it holds its weights alone."""

    def close(self) -> None:
        """Free the model."""
        del self.model

    def _ends(self, row: "_Row", stop: Stop) -> bool:
        ids = row.token_ids
        if ids[-1] in stop.token_ids or len(ids) >= row.request.max_tokens:
            return True
        if stop.string is None:
            return False
        return self._token_format.has_just_written(stop.string, ids)


def load_frozen(model_path: str, dtype: str, device: torch.device) -> PreTrainedModel:
    """The model in evaluation mode, without gradients, on ``device``."""
    model: Any = load_model(model_path, dtype=getattr(torch, dtype))
    frozen: PreTrainedModel = model.to(device).eval().requires_grad_(False)
    return frozen


class _Row:
    """One request in progress and its stream of uniform numbers."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.uniforms = np.random.default_rng(request.seed).random(request.max_tokens)
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []


class _Batch:
    """Requests decoded in one batch: their rows, key-value cache and next logits."""

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, requests: Sequence[Request]) -> None:
        self._model = model
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._all = [_Row(request) for request in requests]
        self.rows = list(self._all)
        prompts = [tuple(request.prompt_ids) for request in requests]
        distinct = list(dict.fromkeys(prompts))
        width = len(max(distinct, key=len))
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in distinct], device=model.device)
        self._mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in distinct], device=model.device)
        self._cache = DynamicCache(config=model.config)
        self._logits = self._forward(ids, (self._mask.cumsum(-1) - 1).clamp_min(0))
        row_of = {prompt: i for i, prompt in enumerate(distinct)}
        self._select([row_of[prompt] for prompt in prompts])

    @property
    def completions(self) -> list[Completion]:
        return [Completion(row.token_ids, row.logprobs) for row in self._all]

    @torch.inference_mode()
    def step(self, decoding: Decoding) -> list[int]:
        """Draws the next token of every row and returns them."""
        logprobs = self._logits.log_softmax(-1, dtype=torch.float32)  # (R, V)
        uniforms = [row.uniforms[len(row.token_ids)] for row in self.rows]
        tokens = draw(self._logits, torch.tensor(uniforms, dtype=torch.float64, device=logprobs.device), decoding)
        chosen = logprobs.gather(-1, tokens[:, None])[:, 0].tolist()
        ids = tokens.tolist()
        for row, token, logprob in zip(self.rows, ids, chosen, strict=True):
            row.token_ids.append(token)
            row.logprobs.append(logprob)
        return ids

    @torch.inference_mode()
    def keep(self, going: Sequence[bool], ids: Sequence[int]) -> None:
        """Takes rows that have ended out of the batch and runs the model on the last tokens of the others."""
        alive = [i for i, on in enumerate(going) if on]
        if len(alive) < len(self.rows):
            self.rows = [self.rows[i] for i in alive]
            if not alive:
                return
            self._select(alive)
        column = torch.tensor([[ids[i]] for i in alive], device=self._mask.device)
        self._mask = torch.cat([self._mask, torch.ones_like(column)], dim=1)
        self._logits = self._forward(column, self._mask.sum(-1, keepdim=True) - 1)

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Logits (R, V) of the token after the last column; extends the cache."""
        extra: dict[str, Any] = {"position_ids": positions} if self._takes_positions else {}
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            **extra,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _select(self, rows: Sequence[int]) -> None:
        index = torch.tensor(rows, device=self._mask.device)
        self._cache.batch_select_indices(index)
        self._mask, self._logits = self._mask[index], self._logits[index]


def draw(logits: Tensor, uniforms: Tensor, decoding: Decoding) -> Tensor:
    """Token ids (R,) drawn from logits (R, V) with one uniform number in [0, 1) per row, by inverse transform.

    The order is vLLM's: temperature, top-k, top-p. Probabilities and their sums are float64, so that no token of a
    large vocabulary is lost to rounding.
    """
    if decoding.temperature == 0:
        return logits.argmax(-1)
    scaled = logits.double() / decoding.temperature
    if decoding.top_k > 0:
        smallest = scaled.topk(min(decoding.top_k, scaled.shape[-1]), dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < smallest, -torch.inf)
    if decoding.top_p < 1:
        ordered, order = scaled.sort(dim=-1, descending=True)
        probs = ordered.softmax(-1)
        outside = probs.cumsum(-1) - probs >= decoding.top_p
        scaled = scaled.masked_fill(outside.scatter(-1, order, outside), -torch.inf)
    cumulative = scaled.softmax(-1).cumsum(-1)
    targets = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, targets, right=True)[:, 0].clamp_max(logits.shape[-1] - 1)
