"""RFT: sample outputs, keep the right ones, fine-tune on them."""

from typing import ClassVar

from torch import Tensor

from jqlight.estimators.base import GroupSample
from jqlight.estimators.signals import SampledReward
from jqlight.objective import Coefficients


class RFT(SampledReward):
    """Rejection-sampling fine-tuning (Yuan et al. 2023, arXiv 2308.01825; STaR, arXiv 2203.14465), on-policy.

    A prompt's step is SFT on the rationales and answers of its M outputs that have the full reward of 1, their mean; a
    prompt without any gets zeros. The outputs are the current policy's: sampled anew for every step, from the trained
    model and not from the starting one, without the hint of the gold answer that STaR retries with. In expectation
    that follows sum_{k=1..M} (1-P)^(k-1) grad P: MaxRL without its control variate, and one term further.
    """

    fewest_rollouts = 1
    likelihood_rewards: ClassVar[tuple[str, ...]] = ()

    def coefficients(self, signal: Tensor, sample: GroupSample) -> Coefficients:
        """1 / (number kept) for each output of reward 1, zero for the others."""
        kept = (signal >= 1).double()
        weights = kept / kept.sum(-1, keepdim=True).clamp_min(1)
        return self.on_samples(Coefficients(weights, weights), sample)
