"""PAFT: resample rationales by how well they explain the answer, then fine-tune on them."""

from typing import Any

import torch
from torch import Tensor

from jqlight.diagnostics import distinct_rationales
from jqlight.errors import ConfigError
from jqlight.estimators.base import GroupSample
from jqlight.estimators.signals import AnswerLikelihood
from jqlight.objective import Coefficients, paft, paft_log_size
from jqlight.policy import PolicyConfig
from jqlight.sampling import SamplerConfig, rollout_seed


class PAFT(AnswerLikelihood):
    """Posterior-attenuated fine-tuning: w̄^(1-q) times SFT on resampled rationales. Lin & Ie (2026), eq. (14), Alg. 2.

    Only rationales are sampled. q = 1 is the EM/TRICE step with weight one per draw.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        num_resamples: K, draws per prompt with probability proportional to w; None for M.
        **settings: those of :class:`AnswerLikelihood`.

    Raises:
        ConfigError: num_resamples below 1, or what :class:`AnswerLikelihood` refuses.
    """

    def __init__(
        self, policy: PolicyConfig, sampler: SamplerConfig, *, num_resamples: int | None = None, **settings: Any
    ) -> None:
        super().__init__(policy, sampler, **settings)
        if num_resamples is not None and num_resamples < 1:
            raise ConfigError(f"model.num_resamples: given {num_resamples}, allowed is 1 or more, or null for M")
        self.num_resamples = num_resamples
        self._remember(num_resamples=num_resamples)

    def coefficients(self, signal: Tensor, sample: GroupSample) -> Coefficients:
        """``jqlight.objective.paft``; the draws' seed is a function of (run seed, step, example id) alone."""
        seed = rollout_seed(self.run_seed, "resample", self.global_step, sample.example.id, 0)
        return paft(
            signal,
            self.commitment,
            num_resamples=self.num_resamples,
            normalize=self.normalize,
            generator=torch.Generator().manual_seed(seed),
            log_ratio=sample.log_ratio,
            log_unit=sample.log_unit,
        )

    def log_size(self, signal: Tensor, sample: GroupSample) -> float:
        """``jqlight.objective.paft_log_size``."""
        return paft_log_size(signal, self.commitment, normalize=self.normalize, log_ratio=sample.log_ratio).item()

    def diagnose(self, signals: Tensor, coefficients: Coefficients) -> dict[str, float]:
        """Those of the log-weights, and how many distinct rationales were drawn per group."""
        return {**super().diagnose(signals, coefficients), "distinct_rationales": distinct_rationales(coefficients)}
