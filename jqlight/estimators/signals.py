"""The two signals a gradient estimator can be built on: the gold answer's likelihood, or a sampled answer's reward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.diagnostics import weight_diagnostics
from jqlight.errors import ConfigError
from jqlight.estimators.base import Estimator
from jqlight.estimators.scale import Scale, StepScale
from jqlight.objective import Coefficients, Commitment, Tsallis, as_commitment
from jqlight.policy import Continuation, Group, PolicyConfig
from jqlight.sampling import Rollout, SamplerConfig
from jqlight.schedules import Schedule


class AnswerLikelihood(Estimator):
    """Estimators on log w_m = log p(y*|x*, z_m): only rationales are sampled, no verifier is called.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        q: a number in [0, 1], a schedule (Step, Linear, Cosine), or Splice.
        normalize: divide the coefficients by M^q, so that the effective reward is at most 1.
        scale: raw (the paper's step), batch (a batch's gradient is divided by its own largest coefficient) or running
            (by a reference that rises at once and falls slowly).
        **settings: those of :class:`Estimator`.

    Raises:
        ConfigError: q outside [0, 1], another scale, or what :class:`Estimator` refuses.
    """

    samples_answers = False

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        q: float | Commitment | Schedule = 0.75,
        *,
        normalize: bool = True,
        scale: Scale = "raw",
        **settings: Any,
    ) -> None:
        super().__init__(policy, sampler, **settings)
        self.q = q if isinstance(q, Schedule) else as_commitment(q)
        self.normalize = normalize
        self.step_scale = StepScale(scale)
        self._remember(normalize=normalize, scale=scale, **_described(self.q))

    @property
    def commitment(self) -> Commitment:
        """The commitment in force at this optimizer step."""
        return self.q.at(self.global_step)

    def continuation(self, example: Example, rollout: Rollout) -> Continuation:
        """Rationale, forced tokens, and the gold answer y*."""
        return Continuation(rollout.rationale_ids, rollout.forced_ids, list(example.target_ids))

    def signal(self, example: Example, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        """Log-weights log p(y*|x*, z_m), (M,), nats."""
        return group.log_answer().cpu()

    def diagnose(self, signals: Tensor, coefficients: Coefficients) -> dict[str, float]:
        """Diagnostics of the log-weights (science of the estimate of P, its spread and bias)."""
        # The step that this batch belongs to has been taken by the time it is logged.
        return weight_diagnostics(signals, self.q.at(max(0, self.global_step - 1)))


class SampledReward(Estimator):
    """Estimators on rewards r_m in [0, 1] of sampled answers: the benchmark's ``reward``, an exact match as a rule.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        rollouts: M, outputs per prompt, at least 2.
        **settings: those of :class:`Estimator`.

    Raises:
        ConfigError: fewer than 2 rollouts, or what :class:`Estimator` refuses.
    """

    samples_answers = True

    def __init__(self, policy: PolicyConfig, sampler: SamplerConfig, *, rollouts: int = 32, **settings: Any) -> None:
        if rollouts < 2:
            raise ConfigError(f"model.rollouts: given {rollouts}, a group's rewards are compared: it needs at least 2")
        super().__init__(policy, sampler, rollouts=rollouts, **settings)

    def continuation(self, example: Example, rollout: Rollout) -> Continuation:
        """Rationale, forced tokens, and the answer as it was sampled."""
        return Continuation(rollout.rationale_ids, rollout.forced_ids, rollout.answer_ids)

    def signal(self, example: Example, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        """Rewards of the sampled answers, (M,), in [0, 1]."""
        answers = [self.token_format.decode_answer(r.answer_ids) for r in rollouts]
        reward = self.benchmark.verifiers[self.benchmark.reward]
        return torch.tensor([reward(answer, example.references) for answer in answers], dtype=torch.float64)

    def diagnose(self, signals: Tensor, coefficients: Coefficients) -> dict[str, float]:
        """Mean reward as ``success``, and the groups without a learning signal."""
        dead = (coefficients.score == 0).all(-1).double()
        return {"success": signals.mean().item(), "dead_groups": dead.sum().item()}


def _described(q: Commitment | Schedule) -> dict[str, object]:
    """``q`` (a number, or its own spelling), ``commitment`` (its kind) and ``commitment.NAME`` numbers."""
    if isinstance(q, Tsallis):
        return {"q": q.q, "commitment": "tsallis"}
    numbers = {name: value for name, value in vars(q).items() if isinstance(value, int | float)}
    named = {f"commitment.{name}": value for name, value in numbers.items() if not name.startswith("_")}
    return {"q": repr(q), "commitment": type(q).__name__.lower(), **named}
