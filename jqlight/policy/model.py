"""The trained causal language model: loading, adapters, groups, weights and export."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from jqlight import model_folder
from jqlight.errors import ConfigError
from jqlight.hub import resolve
from jqlight.policy import adapters
from jqlight.policy.batching import Budget, Continuation, build_rows
from jqlight.policy.config import PolicyConfig
from jqlight.policy.forward import Network, Route, checkpoint_layers
from jqlight.policy.group import Group
from jqlight.policy.memory import make_budget
from jqlight.policy.sharing import choose_route
from jqlight.token_format import TokenFormat

log = logging.getLogger(__name__)


class Policy(nn.Module):
    """A causal language model with its tokenizer, as the estimators use it.

    Construction is cheap; tokenizer and format are read on first use, weights by :meth:`load`.

    Dropout is off, in training too: all its probabilities are set to 0 in the loaded config (an export has the
    original ones again). Rollouts are samples of the model without dropout, and the log-weights and gradients must
    belong to that same distribution.

    Attributes:
        config: the settings.
        model: the Hugging Face model, once :meth:`load` has run.
        pending_bytes: how much memory beside gradients training will still take, as far as somebody knows.
    """

    model: PreTrainedModel
    share_prompt = True
    """Whether a prompt is run once per group where the architecture allows it; a test may say that it is not."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self._route: Route | None = None
        self._budget: Budget | None = None
        self._checkpointed = config.gradient_checkpointing is True
        self._largest = 0.0
        self.pending_bytes: Callable[[], int] = lambda: 0
        self._dropout: dict[str, Any] = {}

    @cached_property
    def path(self) -> str:
        """Absolute path of the model's folder, or its hub id. Raises what :func:`jqlight.hub.resolve` raises."""
        return resolve(self.config.name_or_path)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own tokenizer."""
        return model_folder.read_tokenizer(self.path)

    @cached_property
    def format(self) -> TokenFormat:
        """The output format in token ids; every end of sequence that tokenizer or configs name ends an answer."""
        config = model_folder.read_config(self.path)
        ends, rows = model_folder.end_ids(self.path, config), model_folder.embedding_rows(config)
        return TokenFormat(self.tokenizer, self.config.thinking, ends, rows)

    @property
    def loaded(self) -> bool:
        """Whether :meth:`load` has run."""
        return hasattr(self, "model")

    def load(self) -> None:
        """Read the weights, set dropout to 0, put the adapters in. A second call changes nothing.

        Raises:
            ConfigError: no such folder, one that is not whole, or adapters that cannot be made.
            HubError: the hub has no such model or cannot be reached.
        """
        if self.loaded:
            return
        config = model_folder.read_config(self.path)
        for name, value in config.to_dict().items():
            if ("dropout" in name or "pdrop" in name or "layerdrop" in name) and isinstance(value, float):
                self._dropout[name] = value
                setattr(config, name, 0.0)
        model = model_folder.load_model(self.path, config=config, dtype=getattr(torch, self.config.dtype))
        if self.config.lora is not None:
            adapters.inject(model, self.config.lora)
            adapters.keep_adapters_only(self)
        if self._checkpointed:
            checkpoint_layers(model)
        self.model = model.train()

    def group(self, prompt_ids: Sequence[int], continuations: Sequence[Continuation]) -> Group:
        """One prompt with its continuations; nothing is run yet, except once the check of the architecture.

        The first group decides for all: whether prompts can be shared, which is measured against the plain model, and
        the token budget where ``micro_batch_tokens`` is auto.

        Args:
            prompt_ids: token ids of the prompt, at least one.
            continuations: the M continuations, in the order of the coefficients.
        """
        route = self._route
        if route is None:
            rows = build_rows(continuations, self.model.device)
            route = self._route = choose_route(self.model, prompt_ids, rows, share=self.share_prompt)
        if self._budget is None:
            self._budget = self._make_budget(checkpointed=self._checkpointed)
        network = Network(self.model, route or Route(share=False, compact=False))
        group = Group(network, self._budget, prompt_ids, continuations)
        if not group.fits and self.config.gradient_checkpointing == "auto" and not self._checkpointed:
            wider = Group(network, self._make_budget(checkpointed=True), prompt_ids, continuations)
            if wider.fits:
                log.info("policy.gradient_checkpointing auto: on, since a group fits in memory only so")
                self._checkpointed, self._budget, group = True, wider.budget, wider
                checkpoint_layers(self.model)
        self._largest = max(self._largest, group.tokens)
        return group

    def _make_budget(self, *, checkpointed: bool) -> Budget:
        tokens, pending = self.config.micro_batch_tokens, self.pending_bytes()
        copies = not (self._route and self._route.two_parts)
        return make_budget(self.model, tokens, checkpointed=checkpointed, pending=pending, copies=copies)

    def shrink(self) -> int | None:
        """Halve the token budget after memory ran out; the new one, or None where it is small already."""
        tokens = min(self._budget.tokens if self._budget else 0, int(self._largest)) // 2
        if self._budget is None or tokens < 1:
            return None
        self._budget, self._largest = self._budget._replace(tokens=tokens), 0.0
        return tokens

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors as in a checkpoint, detached, adapters merged: what :meth:`Engine.sync` takes.

        A head that is tied to the embedding is left out. Tensors without an adapter are the model's own memory: read
        them before the next optimizer step.
        """
        yield from adapters.checkpoint_tensors(self.model)

    def export_adapters(self, folder: str | Path) -> None:
        """Write the adapters alone, with the tokenizer, as a folder that peft reads.

        Raises:
            ConfigError: the policy has none.
        """
        if self.config.lora is None:
            raise ConfigError("--adapters: this model was trained whole, without policy.lora; leave the option out")
        Path(folder).mkdir(parents=True, exist_ok=True)
        adapters.save_adapters(self.model, self.config.lora, self.path, folder)
        self.tokenizer.save_pretrained(folder)

    def export(self, folder: str | Path) -> None:
        """Write model (adapters merged), tokenizer and generation config as a Hugging Face folder."""
        self.model.save_pretrained(folder, state_dict=dict(self.weights()))
        config = copy.deepcopy(self.model.config)
        for name, value in self._dropout.items():
            setattr(config, name, value)
        config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
