"""The two signals a gradient estimator can be built on: the gold answer's likelihood, or a sampled answer's reward."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback
from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.diagnostics import weight_diagnostics
from jqlight.errors import ConfigError
from jqlight.estimators.base import Estimator, GroupSample
from jqlight.estimators.scale import Scale, StepScale
from jqlight.objective import Coefficients, Commitment, Tsallis, as_commitment, reweighted
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
    """Estimators on rewards r_m of sampled outputs: a verifier's score in [0, 1], an exact match as a rule.

    A reward made of the gold answer's likelihood needs no sampled answer: only rationales are drawn, and only their
    tokens are trained. The reward's own gradient is left out; with it such a method is GARL at q = 0.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        rollouts: M, outputs per prompt, at least 2.
        reward: prefix of one of the benchmark's verifiers ("exact_", "" for the paper's rule); log_probability for
            log p(y*|x*, z_m), nats; mean_probability for RLPR's (arXiv 2506.18254) mean over the tokens of separator,
            gold answer and end of sequence of their probabilities; None for ``Benchmark.reward``.
        **settings: those of :class:`Estimator`.

    Raises:
        ConfigError: too few rollouts, or what :class:`Estimator` refuses; once the data are known, another reward.
    """

    fewest_rollouts: ClassVar[int] = 2
    likelihood_rewards: ClassVar[tuple[str, ...]] = ("log_probability", "mean_probability")
    """Rewards made of the gold answer's likelihood that make sense here."""

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        *,
        rollouts: int = 32,
        reward: str | None = None,
        **settings: Any,
    ) -> None:
        if rollouts < self.fewest_rollouts:
            raise ConfigError(
                f"model.rollouts: given {rollouts}, a group's rewards are compared: it needs at least "
                f"{self.fewest_rollouts}"
            )
        super().__init__(policy, sampler, rollouts=rollouts, **settings)
        self.reward = reward
        self.samples_answers = reward not in SampledReward.likelihood_rewards
        self._remember(reward=reward)

    def configure_callbacks(self) -> list[Callback]:
        """Refuse a reward that the data do not have, before they are read."""
        callbacks = super().configure_callbacks()
        allowed = [*self.benchmark.verifiers, *self.likelihood_rewards]
        if self.reward not in (None, *allowed):
            raise ConfigError(
                f"model.reward: given {self.reward!r}, allowed with {type(self).__name__} on "
                f"{type(self.benchmark).__name__} are {', '.join(map(repr, allowed))} and null for the benchmark's own"
            )
        return callbacks

    def continuation(self, example: Example, rollout: Rollout) -> Continuation:
        """Rationale, forced tokens, and the answer as it was sampled; the gold one where none was."""
        answer = rollout.answer_ids if self.samples_answers else list(example.target_ids)
        return Continuation(rollout.rationale_ids, rollout.forced_ids, answer)

    def signal(self, example: Example, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        """Rewards, (M,): in [0, 1], or nats for log_probability."""
        if self.reward == "log_probability":
            return group.log_answer().cpu()
        if self.reward == "mean_probability":
            gold = len(example.target_ids)
            return torch.stack([log_p[-gold:].exp().mean() for log_p in group.token_logprobs()]).cpu()
        answers = [self.token_format.decode_answer(r.answer_ids) for r in rollouts]
        reward = self.benchmark.verifiers[self.benchmark.reward if self.reward is None else self.reward]
        return torch.tensor([reward(answer, example.references) for answer in answers], dtype=torch.float64)

    def told(self, signal: Tensor, group: Group) -> dict[str, Tensor]:
        """The rewards too."""
        return {**super().told(signal, group), "reward": signal}

    def on_samples(self, weights: Coefficients, sample: GroupSample) -> Coefficients:
        """``weights`` times the importance ratios, on sampled tokens only: zero on a gold answer."""
        weights = reweighted(weights, sample.log_ratio)
        return weights if self.samples_answers else rationale_only(weights)

    def diagnose(self, signals: Tensor, coefficients: Coefficients) -> dict[str, float]:
        """Mean reward as ``success`` (of log-probabilities: the mean of p), and the groups without a signal."""
        dead = (coefficients.score == 0).all(-1).double()
        rewards = signals.exp() if self.reward == "log_probability" else signals
        return {"success": rewards.mean().item(), "dead_groups": dead.sum().item()}


def rationale_only(coefficients: Coefficients) -> Coefficients:
    """``coefficients`` with those of the answer's tokens zero."""
    return coefficients._replace(pathwise=torch.zeros_like(coefficients.pathwise))


def _described(q: Commitment | Schedule) -> dict[str, object]:
    """``q`` (a number, or its own spelling), ``commitment`` (its kind) and ``commitment.NAME`` numbers."""
    if isinstance(q, Tsallis):
        return {"q": q.q, "commitment": "tsallis"}
    numbers = {name: value for name, value in vars(q).items() if isinstance(value, int | float)}
    named = {f"commitment.{name}": value for name, value in numbers.items() if not name.startswith("_")}
    return {"q": repr(q), "commitment": type(q).__name__.lower(), **named}
