"""RLOO: REINFORCE with a leave-one-out baseline on exact-match rewards."""

from collections.abc import Sequence

from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.errors import ConfigError
from jqlight.estimators.signals import SampledReward
from jqlight.objective import Coefficients, reweighted, rloo
from jqlight.policy import Group, PolicyConfig
from jqlight.sampling import Rollout, SamplerConfig


class RLOO(SampledReward):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv 2402.14740): r_m minus the mean of the others.

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
            raise ConfigError(f"model.rollouts: given {rollouts}, a leave-one-out reward needs at least 2")
        super().__init__(policy, sampler, rollouts, samples, max_grad_norm, seed)

    def coefficients(
        self,
        signal: Tensor,
        example: Example,
        rollouts: Sequence[Rollout],
        group: Group,
        log_ratio: Tensor | None = None,
    ) -> Coefficients:
        """``jqlight.objective.rloo`` of the rewards."""
        return reweighted(rloo(signal), log_ratio)
