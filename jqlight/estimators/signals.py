"""The two signals a gradient estimator can be built on: the gold answer's likelihood, or a sampled answer's reward."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.diagnostics import weight_diagnostics
from jqlight.errors import ConfigError
from jqlight.estimators.base import Estimator
from jqlight.estimators.scale import Scale, StepScale
from jqlight.metrics.verifiers import exact_match
from jqlight.objective import Coefficients, Commitment, Tsallis, as_commitment
from jqlight.policy import Continuation, Group, PolicyConfig
from jqlight.sampling import Rollout, SamplerConfig


class AnswerLikelihood(Estimator):
    """Estimators on log w_m = log p(y*|x*, z_m): only rationales are sampled, no verifier is called.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        q: a number in [0, 1], a schedule, or a splice.
        normalize: divide the coefficients by M^q.
        scale: raw (the paper's step), batch (a batch's gradient is divided by its own largest coefficient) or running
            (by a reference that rises at once and falls slowly), see :class:`jqlight.estimators.scale.StepScale`.
        **settings: those of ``Estimator``.
    """

    samples_answers = False

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        q: float | Commitment = 0.75,
        normalize: bool = True,
        scale: Scale = "raw",
        **settings: object,
    ) -> None:
        super().__init__(policy, sampler, **settings)  # type: ignore[arg-type]
        self.q, self.normalize = as_commitment(q), normalize
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

    @abstractmethod
    def coefficients(
        self,
        signal: Tensor,
        example: Example,
        rollouts: Sequence[Rollout],
        group: Group,
        log_ratio: Tensor | None = None,
        log_unit: float = 0.0,
    ) -> Coefficients:
        """Coefficients (1, M) from log-weights (1, M), divided by e^log_unit."""

    @abstractmethod
    def log_size(self, log_w: Tensor, log_ratio: Tensor | None) -> Tensor:
        """Size of the coefficients of log-weights (B, M), (B,) nats: what the step's scale is made of."""

    def in_step_units(
        self,
        coefficients: Coefficients,
        signal: Tensor,
        example: Example,
        rollouts: Sequence[Rollout],
        group: Group,
        log_ratio: Tensor | None,
    ) -> Coefficients | None:
        """Computed again in the step's unit, since coefficients under e^-745 are lost when they are divided later."""
        if self.step_scale.kind == "raw":
            return coefficients
        log_unit = self.step_scale.admit(self.log_size(signal, log_ratio).item())
        if log_unit is None:
            return None
        return self.coefficients(signal, example, rollouts, group, log_ratio, log_unit)

    def diagnose(self, signals: Tensor, coefficients: Coefficients) -> dict[str, float]:
        """Diagnostics of the log-weights (science of the estimate of P, its spread and bias)."""
        # The step that this batch belongs to has been taken by the time it is logged.
        return weight_diagnostics(signals, self.q.at(max(0, self.global_step - 1)))


class SampledReward(Estimator):
    """Estimators on r_m = 1 if the sampled answer equals the gold answer exactly (stripped), else 0.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        rollouts: M, outputs per prompt, at least 2.
        samples: samples per prompt in evaluation, the k of pass@k and maj@k.
        max_grad_norm: gradient norm above which the gradient is scaled down; inf for never.
        seed: of all sampling; None takes ``seed_everything``.

    Raises:
        ConfigError: fewer than 2 rollouts, or what ``Estimator`` refuses.
    """

    samples_answers = True

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        rollouts: int = 32,
        samples: int = 16,
        max_grad_norm: float = 1.0,
        seed: int | None = None,
    ) -> None:
        if rollouts < 2:
            raise ConfigError(f"model.rollouts: given {rollouts}, a group's rewards are compared: it needs at least 2")
        super().__init__(policy, sampler, rollouts, samples, max_grad_norm, seed)

    def continuation(self, example: Example, rollout: Rollout) -> Continuation:
        """Rationale, forced tokens, and the answer as it was sampled."""
        return Continuation(rollout.rationale_ids, rollout.forced_ids, rollout.answer_ids)

    def signal(self, example: Example, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        """Exact-match rewards, (M,), 0 or 1."""
        texts = [self.token_format.decode_answer(r.answer_ids) for r in rollouts]
        return torch.tensor([exact_match(text, [example.answer]) for text in texts], dtype=torch.float64)

    def diagnose(self, signals: Tensor, coefficients: Coefficients) -> dict[str, float]:
        """Mean reward as ``success``, and the groups without a learning signal."""
        dead = (coefficients.score == 0).all(-1).double()
        return {"success": signals.mean().item(), "dead_groups": dead.sum().item()}


def _described(commitment: Commitment) -> dict[str, object]:
    """``q`` (a number, or the commitment's own spelling), ``commitment`` (its kind) and ``commitment.NAME`` numbers."""
    if isinstance(commitment, Tsallis):
        return {"q": commitment.q, "commitment": "tsallis"}
    numbers = {name: value for name, value in vars(commitment).items() if isinstance(value, int | float)}
    named = {f"commitment.{name}": value for name, value in numbers.items() if not name.startswith("_")}
    return {"q": repr(commitment), "commitment": type(commitment).__name__.lower(), **named}
