"""RLOO: REINFORCE with a leave-one-out baseline on exact-match rewards."""

from collections.abc import Sequence

from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.estimators.signals import SampledReward
from jqlight.objective import Coefficients, reweighted, rloo
from jqlight.policy import Group
from jqlight.sampling import Rollout


class RLOO(SampledReward):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv 2402.14740): r_m minus the mean of the others."""

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
