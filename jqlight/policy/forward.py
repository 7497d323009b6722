"""Forward passes of a causal language model: whole sequences, a prompt alone, or continuations behind a prompt."""

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from jqlight.policy.attention import PromptBeside
from jqlight.policy.head import accumulation_dtype, log_probs, token_log_probs


class Route(NamedTuple):
    """How log-probabilities are computed for an architecture."""

    share: bool
    """Run a prompt once, and its continuations against its keys and values."""
    compact: bool
    """Apply the output embedding to the needed hidden states; otherwise call the whole model for its logits."""
    two_parts: bool = False
    """Attend to a shared prompt and to a row's own tokens apart (:mod:`jqlight.policy.attention`)."""


class Prompt:
    """A prompt's forward pass, cut off from its continuations.

    Attributes:
        leaves: log p of the token behind the prompt over the vocabulary, (V,), then each layer's keys and values,
            (1, heads, P, size). Gradients of the continuations gather here.
        length: P.
    """

    def __init__(self, roots: list[Tensor], length: int) -> None:
        self._roots = roots
        self.length = length
        self.leaves = [root.detach().requires_grad_(root.requires_grad) for root in roots]

    @property
    def has_graph(self) -> bool:
        """Whether a backward can still follow."""
        return any(root.requires_grad for root in self._roots)

    @property
    def first(self) -> Tensor:
        """log p of the first token of a continuation, over the vocabulary, (V,)."""
        return self.leaves[0]

    def cache(self, rows: int, *, beside: bool) -> Cache:
        """Keys and values for one forward pass of ``rows`` continuations: in front of theirs, or ``beside`` them."""
        pairs = zip(self.leaves[1::2], self.leaves[2::2])
        return Cache(layers=[PromptBeside(*pair) if beside else _Prefix(*pair, rows) for pair in pairs])

    def backward(self) -> None:
        """Pass the gradients gathered in the leaves on to the parameters, and free the graph."""
        pairs = [(root, leaf.grad) for root, leaf in zip(self._roots, self.leaves) if leaf.grad is not None]
        if pairs:
            torch.autograd.backward([root for root, _ in pairs], [grad for _, grad in pairs])
        self.release()

    def release(self) -> None:
        """Free the graph and the gradients; keys and values stay, for passes without gradient."""
        self._roots = []
        self.leaves = [leaf.detach() for leaf in self.leaves]


class Network:
    """The passes of one model along one :class:`Route`."""

    def __init__(self, model: PreTrainedModel, route: Route) -> None:
        self.model = model
        self.route = route
        head = model.get_output_embeddings()
        self._weight: Tensor = head.weight
        self._bias: Tensor | None = getattr(head, "bias", None)
        self._keeps_logits = "logits_to_keep" in inspect.signature(type(model).forward).parameters

    def prompt(self, prompt_ids: Tensor) -> Prompt:
        """The pass of a prompt, (P,) int64, with its graph where gradients are enabled."""
        cache = Cache(layer_class_to_replicate=_Recorder)
        state = self._run(prompt_ids[None], cache, 1)[0, -1:]
        first = self._distribution(state)[0]
        noted = [tensor for layer in cache.layers if isinstance(layer, _Recorder) for tensor in layer.noted]
        return Prompt([first, *noted], len(prompt_ids))

    def continuations(self, tokens: Tensor, scored: Tensor, prompt: Prompt) -> Tensor:
        """log p of the scored tokens behind a shared prompt, the first of each row excepted, (N,), row by row.

        Args:
            tokens: token ids behind the prompt, (n, L), padded on the right.
            scored: which of them to return, (n, L) bool; column 0 is not looked at (see :attr:`Prompt.first`).
            prompt: the prompt's pass.
        """
        scored = scored[:, 1:]
        if tokens.shape[1] < 2:
            return prompt.first.new_zeros(0)
        # Causal attention: a token never looks at the padding on its right, so that no padding mask is needed.
        cache = prompt.cache(len(tokens), beside=self.route.two_parts)
        states = self._run(tokens[:, :-1], cache, tokens.shape[1] - 1)
        return self._pick(states[scored], tokens[:, 1:][scored])

    def sequences(self, prompt_ids: Tensor, tokens: Tensor, scored: Tensor) -> Tensor:
        """log p of all scored tokens by whole sequences, (N,), row by row; arguments as above, the prompt as ids."""
        ids = torch.cat([prompt_ids.expand(len(tokens), -1), tokens[:, :-1]], dim=1)
        states = self._run(ids, None, tokens.shape[1])[:, -tokens.shape[1] :]
        return self._pick(states[scored], tokens[scored])

    def _run(self, ids: Tensor, cache: Cache | None, last: int) -> Tensor:
        """Hidden states, or logits where the head is not compact, of at least the ``last`` positions."""
        options: dict[str, Any] = {"past_key_values": cache, "use_cache": cache is not None}
        if self.route.compact:
            states: Tensor = self.model.get_decoder()(input_ids=ids, **options).last_hidden_state
            return states
        if self._keeps_logits:
            options["logits_to_keep"] = last
        logits: Tensor = self.model(input_ids=ids, **options).logits
        return logits

    def _pick(self, states: Tensor, targets: Tensor) -> Tensor:
        if self.route.compact:
            return token_log_probs(states, self._weight, self._bias, targets)
        return self._distribution(states).gather(-1, targets[:, None])[:, 0]

    def _distribution(self, states: Tensor) -> Tensor:
        if self.route.compact:
            return log_probs(states, self._weight, self._bias)
        return states.to(accumulation_dtype(states.dtype)).log_softmax(-1)


class _Recorder(DynamicLayer):
    """Notes the keys and values of one layer. Writing twice is harmless, so that a layer can be recomputed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers' own
        self.noted: tuple[Tensor, ...] = ()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.noted = (key_states, value_states)
        return key_states, value_states


class _Prefix(DynamicLayer):
    """A prompt's keys and values, the same for every row; what is added behind them is not kept."""

    def __init__(self, keys: Tensor, values: Tensor, rows: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers' own
        self._past = (keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = self._past
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)

    def get_seq_length(self) -> int:
        return self._past[0].shape[-2]


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Recompute every decoder layer in backward instead of keeping its activations.

    The model's own switch drops the key-value cache that a shared prompt needs; the caches above can be written twice.
    """
    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    def recompute(layer: nn.Module) -> None:
        plain = layer.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return plain(*args, **kwargs)
            return checkpoint(plain, *args, use_reentrant=False, **kwargs)

        layer.forward = forward

    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            recompute(module)
