"""PAFT: resample rationales by how well they explain the answer, then fine-tune on them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.diagnostics import distinct_rationales
from jqlight.errors import ConfigError
from jqlight.estimators.scale import Scale
from jqlight.estimators.signals import AnswerLikelihood
from jqlight.objective import Coefficients, Commitment, paft, paft_log_size
from jqlight.policy import Group, PolicyConfig
from jqlight.sampling import Rollout, SamplerConfig, rollout_seed


class PAFT(AnswerLikelihood):
    """Posterior-attenuated fine-tuning: w̄^(1-q) times SFT on resampled rationales. Lin & Ie (2026), eq. (14), Alg. 2.

    Only rationales are sampled. q = 1 is the EM/TRICE step with weight one per draw.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        q: a number in [0, 1], a schedule (Step, Linear, Cosine), or Splice.
        rollouts: M, rationales per prompt.
        samples: samples per prompt in evaluation, the k of pass@k and maj@k.
        num_resamples: K, draws per prompt with probability proportional to w; None for M.
        normalize: divide by M^q.
        scale: raw (the paper's step), batch (the gradient divided by the batch's largest coefficient) or running (by a
            reference that rises at once and falls slowly).
        max_grad_norm: gradient norm above which the gradient is scaled down; inf for never.
        seed: of all sampling; None takes ``seed_everything``.

    Raises:
        ConfigError: q outside [0, 1]; num_resamples below 1.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        q: float | Commitment = 0.75,
        rollouts: int = 32,
        samples: int = 16,
        num_resamples: int | None = None,
        normalize: bool = True,
        scale: Scale = "raw",
        max_grad_norm: float = 1.0,
        seed: int | None = None,
    ) -> None:
        if num_resamples is not None and num_resamples < 1:
            raise ConfigError(f"model.num_resamples: given {num_resamples}, allowed is 1 or more, or null for M")
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
        self.num_resamples = num_resamples
        self._remember(num_resamples=num_resamples)

    def coefficients(
        self,
        signal: Tensor,
        example: Example,
        rollouts: Sequence[Rollout],
        group: Group,
        log_ratio: Tensor | None = None,
        log_unit: float = 0.0,
    ) -> Coefficients:
        """``jqlight.objective.paft``; the draws' seed is a function of (run seed, step, example id) alone."""
        generator = torch.Generator().manual_seed(
            rollout_seed(self.run_seed, "resample", self.global_step, example.id, 0)
        )
        return paft(
            signal,
            self.commitment,
            num_resamples=self.num_resamples,
            normalize=self.normalize,
            generator=generator,
            log_ratio=log_ratio,
            log_unit=log_unit,
        )

    def log_size(self, log_w: Tensor, log_ratio: Tensor | None) -> Tensor:
        """``jqlight.objective.paft_log_size``."""
        return paft_log_size(log_w, self.commitment, normalize=self.normalize, log_ratio=log_ratio)

    def diagnose(self, signals: Tensor, coefficients: Coefficients) -> dict[str, float]:
        """Those of the log-weights, and how many distinct rationales were drawn per group."""
        return {**super().diagnose(signals, coefficients), "distinct_rationales": distinct_rationales(coefficients)}
