"""GARL: the gradient-amplified estimator, a weighted log-likelihood of rationale and answer."""

from collections.abc import Sequence

from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.errors import ConfigError
from jqlight.estimators.scale import Scale
from jqlight.estimators.signals import AnswerLikelihood
from jqlight.objective import Coefficients, Commitment, garl, garl_log_size
from jqlight.policy import Group, PolicyConfig
from jqlight.sampling import Rollout, SamplerConfig


class GARL(AnswerLikelihood):
    """Rao-Blackwellised policy gradient amplified by w̄^-q. Lin & Ie (2026), eq. (12), Algorithm 1.

    Only rationales are sampled. q = 0 is leave-one-out REINFORCE on p(y*|x*, z) (RB-RLOO, VeriFree); q = 1 without
    baseline is the IWAE gradient.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        q: a number in [0, 1], a schedule (Step, Linear, Cosine), or Splice.
        rollouts: M, rationales per prompt.
        samples: samples per prompt in evaluation, the k of pass@k and maj@k.
        baseline: subtract the leave-one-out baseline; needs M >= 2.
        normalize: divide by M^q, so that the effective reward is at most 1.
        scale: raw (the paper's step), batch (the gradient divided by the batch's largest coefficient) or running (by a
            reference that rises at once and falls slowly).
        max_grad_norm: gradient norm above which the gradient is scaled down; inf for never.
        seed: of all sampling; None takes ``seed_everything``.

    Raises:
        ConfigError: q outside [0, 1]; one rollout with a baseline.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        q: float | Commitment = 0.75,
        rollouts: int = 32,
        samples: int = 16,
        baseline: bool = True,
        normalize: bool = True,
        scale: Scale = "raw",
        max_grad_norm: float = 1.0,
        seed: int | None = None,
    ) -> None:
        if baseline and rollouts < 2:
            raise ConfigError(
                f"model.rollouts: given {rollouts}, but the leave-one-out baseline needs at least 2; raise "
                "model.rollouts or set model.baseline: false"
            )
        super().__init__(
            policy,
            sampler,
            q,
            normalize,
            scale,
            rollouts=rollouts,
            samples=samples,
            max_grad_norm=max_grad_norm,
            seed=seed,
        )
        self.baseline = baseline
        self._remember(baseline=baseline)

    def coefficients(
        self,
        signal: Tensor,
        example: Example,
        rollouts: Sequence[Rollout],
        group: Group,
        log_ratio: Tensor | None = None,
        log_unit: float = 0.0,
    ) -> Coefficients:
        """``jqlight.objective.garl`` with the commitment of this step."""
        return garl(
            signal,
            self.commitment,
            baseline=self.baseline,
            normalize=self.normalize,
            log_ratio=log_ratio,
            log_unit=log_unit,
        )

    def log_size(self, log_w: Tensor, log_ratio: Tensor | None) -> Tensor:
        """``jqlight.objective.garl_log_size``."""
        return garl_log_size(log_w, self.commitment, normalize=self.normalize, log_ratio=log_ratio)
