"""GARL: the gradient-amplified estimator, a weighted log-likelihood of rationale and answer."""

from typing import Any

from torch import Tensor

from jqlight.errors import ConfigError
from jqlight.estimators.base import GroupSample
from jqlight.estimators.signals import AnswerLikelihood, rationale_only
from jqlight.objective import Coefficients, garl, garl_log_size
from jqlight.policy import PolicyConfig
from jqlight.sampling import SamplerConfig


class GARL(AnswerLikelihood):
    """Rao-Blackwellised policy gradient amplified by w̄^-q. Lin & Ie (2026), eq. (12), Algorithm 1.

    Only rationales are sampled. q = 0 is leave-one-out REINFORCE on p(y*|x*, z), VeriFree's (arXiv 2505.21493); q = 1
    without baseline is the IWAE gradient. docs/theory.md names more methods in these terms.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        baseline: subtract the leave-one-out baseline; needs M >= 2.
        pathwise: train the gold answer's tokens too; false leaves the rationale's alone, an ablation: a policy gradient
            whose reward is w_m A(w̄), no longer the gradient of the loss.
        **settings: those of :class:`AnswerLikelihood`.

    Raises:
        ConfigError: one rollout with a baseline, or what :class:`AnswerLikelihood` refuses.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        *,
        baseline: bool = True,
        pathwise: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(policy, sampler, **settings)
        if baseline and self.rollouts < 2:
            raise ConfigError(
                f"model.rollouts: given {self.rollouts}, but the leave-one-out baseline needs at least 2; raise "
                "model.rollouts or set model.baseline: false"
            )
        self.baseline, self.pathwise = baseline, pathwise
        self._remember(baseline=baseline, pathwise=pathwise)

    def coefficients(self, signal: Tensor, sample: GroupSample) -> Coefficients:
        """``jqlight.objective.garl`` with the commitment of this step."""
        coefficients = garl(
            signal,
            self.commitment,
            baseline=self.baseline,
            normalize=self.normalize,
            log_ratio=sample.log_ratio,
            log_unit=sample.log_unit,
        )
        return coefficients if self.pathwise else rationale_only(coefficients)

    def log_size(self, signal: Tensor, sample: GroupSample) -> float:
        """``jqlight.objective.garl_log_size``."""
        return garl_log_size(signal, self.commitment, normalize=self.normalize, log_ratio=sample.log_ratio).item()
