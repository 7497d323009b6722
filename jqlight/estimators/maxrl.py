"""MaxRL: the policy gradient divided by the group's own success rate, on exact-match rewards."""

from collections.abc import Sequence

from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.estimators.signals import SampledReward
from jqlight.objective import Coefficients, maxrl, reweighted
from jqlight.policy import Group
from jqlight.sampling import Rollout


class MaxRL(SampledReward):
    """Maximum-likelihood RL with its control variate (Tajwar et al. 2026, arXiv 2602.02710): (r_m - r̄) / r̄."""

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
