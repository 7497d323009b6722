"""MaxRL: the policy gradient divided by the group's own success rate, on exact-match rewards."""

from collections.abc import Sequence

from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.errors import ConfigError
from jqlight.estimators.signals import SampledReward
from jqlight.objective import Coefficients, maxrl, reweighted
from jqlight.policy import Group, PolicyConfig
from jqlight.sampling import Rollout, SamplerConfig


class MaxRL(SampledReward):
    """Maximum-likelihood RL with its control variate (Tajwar et al. 2026, arXiv 2602.02710): (r_m - r̄) / r̄.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        rollouts: M, outputs per prompt, at least 2.
        samples: samples per prompt in evaluation, the k of pass@k and maj@k.
        max_grad_norm: gradient norm above which the gradient is scaled down; inf for never.
        seed: of all sampling; None takes ``seed_everything``.

    Raises:
        ConfigError: fewer than 2 rollouts.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        rollouts: int = 32,
        samples: int = 16,
        max_grad_norm: float = 1.0,
        seed: int | None = None,
    ) -> None:
        if rollouts < 2:
            raise ConfigError(f"model.rollouts: given {rollouts}, a group-relative advantage needs at least 2")
        super().__init__(policy, sampler, rollouts, samples, max_grad_norm, seed)

    def coefficients(
        self,
        signal: Tensor,
        example: Example,
        rollouts: Sequence[Rollout],
        group: Group,
        log_ratio: Tensor | None = None,
    ) -> Coefficients:
        """``jqlight.objective.maxrl`` of the rewards; a group without success has none."""
        return reweighted(maxrl(signal), log_ratio)
