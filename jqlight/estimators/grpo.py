"""GRPO on the rewards of sampled answers, the baseline that stalls at a cold start."""

import math
from typing import Any

import torch
from torch import Tensor

from jqlight.errors import ConfigError
from jqlight.estimators.base import GroupSample
from jqlight.estimators.signals import SampledReward
from jqlight.objective import Coefficients, grpo
from jqlight.policy import Group, Policy, PolicyConfig
from jqlight.sampling import SamplerConfig


class GRPO(SampledReward):
    """Group-relative policy optimisation (Shao et al. 2024, arXiv 2402.03300), on-policy.

    How it differs from DeepSeekMath's: one optimizer step per rollout batch, so the importance ratio is 1 and nothing
    is clipped; no KL term by default, and where ``kl`` asks for one it is the policy gradient of the sequence's KL from
    the starting model, not a per-token k3 loss; the sum over an output's tokens is used and not their mean, unless
    ``length_normalize``.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        eps: added to the standard deviation of a group's rewards.
        scale_rewards: divide by that standard deviation.
        length_normalize: divide each output's advantage by its number of sampled tokens.
        kl: weight of KL(policy || starting model); above 0 a frozen copy of the starting model is held.
        **settings: those of :class:`SampledReward`.

    Raises:
        ConfigError: a negative kl, or what :class:`SampledReward` refuses.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        *,
        eps: float = 1e-4,
        scale_rewards: bool = True,
        length_normalize: bool = False,
        kl: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(policy, sampler, **settings)
        if not 0 <= kl < math.inf:
            raise ConfigError(f"model.kl: given {kl}, allowed is 0 (no KL term) or a positive weight")
        if not 0 <= eps < math.inf:
            raise ConfigError(f"model.eps: given {eps}, allowed is a number from 0")
        self.eps, self.scale_rewards, self.length_normalize, self.kl = eps, scale_rewards, length_normalize, kl
        # In a list, so that it is no submodule: neither trained, nor in checkpoints.
        self._reference: list[Policy] = []
        self._remember(eps=eps, scale_rewards=scale_rewards, length_normalize=length_normalize, kl=kl)

    def configure_model(self) -> None:
        """Load the policy and, for a KL term, the frozen starting model."""
        super().configure_model()
        if self.kl and not self._reference:
            reference = Policy(self.policy.config)
            reference.load()
            self._reference = [reference.requires_grad_(False)]

    def coefficients(self, signal: Tensor, sample: GroupSample) -> Coefficients:
        """``jqlight.objective.grpo`` of the rewards, with the KL term and the length normalisation where asked for."""
        weights = grpo(signal, eps=self.eps, scale=self.scale_rewards).score
        if self.kl:
            weights = weights - self._kl_weights(sample)
        if self.length_normalize:
            lengths = [max(1, len(r.rationale_ids) + len(r.answer_ids)) for r in sample.rollouts]
            weights = weights / torch.tensor(lengths, dtype=weights.dtype)
        return self.on_samples(Coefficients(weights, weights), sample)

    def _kl_weights(self, sample: GroupSample) -> Tensor:
        """kl / M · (log ratio - mean of the others'), (1, M): E[log ratio · grad log p] is the gradient of the KL."""
        reference = self._reference[0].to(self.device)
        continuations = [self.continuation(sample.example, r) for r in sample.rollouts]
        with torch.no_grad():
            start = self._log_sampled(reference.group(sample.example.prompt_ids, continuations))
        ratio = self._log_sampled(sample.group) - start
        return (self.kl * (ratio - ratio.mean()) / (len(ratio) - 1)).unsqueeze(0)

    def _log_sampled(self, group: Group) -> Tensor:
        """Log-probabilities of what was sampled, (M,)."""
        log_p = group.log_rationale()
        return (log_p + group.log_answer() if self.samples_answers else log_p).detach().cpu()
