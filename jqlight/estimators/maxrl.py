"""MaxRL: the policy gradient divided by the group's own success rate, on the rewards of sampled answers."""

from typing import ClassVar

from torch import Tensor

from jqlight.estimators.base import GroupSample
from jqlight.estimators.signals import SampledReward
from jqlight.objective import Coefficients, maxrl


class MaxRL(SampledReward):
    """Maximum-likelihood RL with its control variate (Tajwar et al. 2026, arXiv 2602.02710): (r_m - r̄) / r̄."""

    likelihood_rewards: ClassVar[tuple[str, ...]] = ("mean_probability",)  # a mean of logarithms is no rate

    def coefficients(self, signal: Tensor, sample: GroupSample) -> Coefficients:
        """``jqlight.objective.maxrl`` of the rewards; a group without success has none."""
        return self.on_samples(maxrl(signal), sample)
