"""RLOO: REINFORCE with a leave-one-out baseline on the rewards of sampled answers."""

from torch import Tensor

from jqlight.estimators.base import GroupSample
from jqlight.estimators.signals import SampledReward
from jqlight.objective import Coefficients, rloo


class RLOO(SampledReward):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv 2402.14740): r_m minus the mean of the others."""

    def coefficients(self, signal: Tensor, sample: GroupSample) -> Coefficients:
        """``jqlight.objective.rloo`` of the rewards."""
        return self.on_samples(rloo(signal), sample)
