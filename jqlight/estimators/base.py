"""The training step that all estimators share: reading ``Estimator.training_step`` is reading Algorithm 1.

sample rationales -> score -> coefficients -> weighted log-likelihood backward -> optimizer step -> sync the engine
"""

import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.errors import ConfigError
from jqlight.estimators import distributed
from jqlight.estimators.all_or_nothing import AllOrNothing, OnNonFinite, spoilt_signal
from jqlight.estimators.kept_rollouts import KeptGroup, due, group_rows
from jqlight.estimators.memory_plan import memory_line
from jqlight.estimators.module import PolicyModule, check_count
from jqlight.estimators.rollouts import (
    RolloutGroups,
    RolloutSource,
    StepBatch,
    check_loader,
    following,
    source_of,
)
from jqlight.estimators.scale import StepScale
from jqlight.estimators.step_metrics import StepLog, StepRecord
from jqlight.objective import Coefficients
from jqlight.policy import Continuation, Group, PolicyConfig
from jqlight.policy.memory import is_out_of_memory
from jqlight.sampling import Rollout, SamplerConfig

log = logging.getLogger(__name__)


class GroupSample(NamedTuple):
    """One prompt with its rollouts: all that a group's coefficients can be made of."""

    example: Example
    rollouts: Sequence[Rollout]
    group: Group
    """Log-probabilities of the M continuations."""
    log_ratio: Tensor | None = None
    """Logs of truncated importance ratios, (1, M), see ``jqlight.objective.truncated``; None for rollouts of the policy
    itself."""
    log_unit: float = 0.0
    """What the coefficients are counted in, nats, see ``jqlight.estimators.scale``."""


class Estimator(PolicyModule):
    """A policy trained on one gradient estimator of the J_Q family, with its sampling engine embedded.

    Optimisation is manual, since a batch's gradient is accumulated group by group: one optimizer step and one weight
    sync per batch, so rollouts are always samples of the policy that is trained. With ``sampler.lookahead`` the next
    batch is sampled meanwhile, from the weights before the step, and its coefficients carry importance ratios.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        rollouts: M, rationales per prompt.
        max_grad_norm: gradient norm above which the gradient is scaled down; inf for never.
        on_nonfinite: what a step does whose log-probabilities, gradient, update or weights are not finite: stop (the
            run) or skip (the step, counted by ``train/skipped_steps``; after 10 in a row the run stops). Either way
            weights and optimizer stay as they were before it.
        **settings: those of :class:`PolicyModule`.

    Raises:
        ConfigError: rollouts, max_grad_norm or on_nonfinite out of range.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        *,
        rollouts: int = 32,
        max_grad_norm: float = 1.0,
        on_nonfinite: OnNonFinite = "stop",
        **settings: Any,
    ) -> None:
        super().__init__(policy, sampler, **settings)
        check_count("rollouts", rollouts)
        if not max_grad_norm > 0:
            raise ConfigError(f"model.max_grad_norm: given {max_grad_norm}, allowed is a number above 0, inf for none")
        self.automatic_optimization = False
        self.rollouts, self.max_grad_norm = rollouts, max_grad_norm
        self.source = RolloutSource(self.draw)
        self._ahead: list[dict[str, Any] | None] = []
        self.step_scale = StepScale()
        self.all_or_nothing = AllOrNothing(on_nonfinite)
        self.step_log = StepLog()
        self.kept: list[KeptGroup] = []
        self._remember(policy=asdict(policy), sampler=asdict(sampler), rollouts=rollouts, samples=self.samples)

    def _remember(self, **settings: object) -> None:
        """Keep ``settings`` (primitives only) as hyper-parameters: in every checkpoint and in the tracker."""
        self.save_hyperparameters({"estimator": type(self).__name__, **self.hparams, **settings})

    # -- what an estimator decides -------------------------------------------------------------------------------

    @abstractmethod
    def continuation(self, example: Example, rollout: Rollout) -> Continuation:
        """The tokens behind the prompt whose likelihood is weighted."""

    @abstractmethod
    def signal(self, example: Example, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        """What the coefficients are made of, (M,) float64: log-weights (log-space) or rewards."""

    @abstractmethod
    def coefficients(self, signal: Tensor, sample: GroupSample) -> Coefficients:
        """Coefficients (1, M) of one group from its signal (1, M); most estimators need nothing else."""

    @abstractmethod
    def diagnose(self, signals: Tensor, coefficients: Coefficients) -> dict[str, float]:
        """Diagnostics of the whole batch, (B, M); must hold ``success``, the estimate of P."""

    def log_size(self, signal: Tensor, sample: GroupSample) -> float:
        """Log of a group's largest coefficient, nats, from its signal (1, M); 0 where a step has no scale."""
        return 0.0

    def told(self, signal: Tensor, group: Group) -> dict[str, Tensor]:
        """What kept rollouts tell of their scores, see :class:`KeptGroup`; nothing is computed for it anew.

        Args:
            signal: of :meth:`signal`, (M,).
            group: whose continuations end in the gold answer, unless answers are sampled.
        """
        return {} if self.samples_answers else {"log_likelihood": group.log_answer()}

    # -- the step --------------------------------------------------------------------------------------------------

    def training_step(self, batch: list[Example], batch_idx: int) -> None:
        """One optimizer step on the mean gradient over ``batch``. Lin & Ie (2026), Algorithm 1.

        Raises:
            NonFiniteError: something is not finite, with ``on_nonfinite: stop``; all is as it was before the step.
            EngineError: the engine's log-probabilities are not the trainer's.
        """
        record, self.kept = StepRecord(), []
        prompts = distributed.total(len(batch), self.device)
        with record.timed("sample"):
            rollouts, record.ratios = self.source.rollouts(StepBatch(self.global_step, batch))
        with self.source.prefetching(following(self), record.timed("sample")):
            problem = self._gradient(batch, rollouts, record, scale=1 / prompts)
            if self._is_exact and not problem:
                record.check_engine(self.global_step, self.device)
            record.rate = self.one_optimizer.param_groups[0]["lr"]
            with record.timed("update"):
                norm = self.all_or_nothing.step(self, problem)
        with record.timed("sync"):
            self.sync_engine()
        if norm is None:
            self.step_log.log_skipped(self, self.all_or_nothing.skipped)
            return
        self.kept = record.groups
        means = self.diagnose(record.signals, record.coefficients)
        means |= {**self.source.metrics(record.ratios), **self.step_scale.metrics()}
        self.step_log.log(self, record, rollouts, means, norm)

    def _gradient(
        self, batch: list[Example], rollouts: RolloutGroups, record: StepRecord, *, scale: float
    ) -> str | None:
        """The sum over groups of their gradients times ``scale``; what is not finite, where something is.

        Where memory runs out all of it is computed again, with smaller micro-batches.
        """
        while True:
            record.begin()
            self.step_scale.begin(self.policy.parameters())
            for parameter in self.parameters():
                parameter.grad = None
            try:
                problems = (self._add_group(*pair, record, scale) for pair in zip(batch, rollouts, strict=True))
                return next(filter(None, problems), None)
            except (RuntimeError, MemoryError) as error:
                self._shrink(error)

    def _add_group(self, example: Example, drawn: list[Rollout], record: StepRecord, scale: float) -> str | None:
        """Add one group's gradient; what is not finite, where something is, before anything is added."""
        with record.timed("score"):
            group = self.policy.group(example.prompt_ids, [self.continuation(example, r) for r in drawn])
            signal = self.signal(example, drawn, group).unsqueeze(0)
            if problem := spoilt_signal(signal, example, self):
                return problem
            sample = GroupSample(example, drawn, group, record.ratios.of(drawn, group) if record.ratios else None)
            coefficients = self.coefficients(signal, sample)
        with record.timed("update"):
            used = self._backward(signal, sample, coefficients, scale)
        record.add(signal, coefficients, KeptGroup(example, drawn, used, self.told(signal[0], group)))
        if record.ratios is None:
            with record.timed("score"):
                # After backward, whose forward has the log-probs of most rows: only the others run for this.
                record.compare_engine(drawn, group)
        return None

    # -- parts of the step -------------------------------------------------------------------------------------------

    def _shrink(self, error: BaseException) -> None:
        """After memory ran out have smaller micro-batches, with which the step begins again; else raise ``error``."""
        tokens = self.policy.shrink() if is_out_of_memory(error) else None
        if tokens is None:
            raise error
        self.step_log.out_of_memory += 1
        log.warning(
            "step %d: memory ran out; the step begins again, from here on with policy.micro_batch_tokens %d",
            self.global_step,
            tokens,
        )
        if self.device.type == "cuda":
            error.__traceback__ = None  # its frames hold the tensors of the pass that failed
            torch.cuda.empty_cache()

    def draw(self, batch: StepBatch) -> RolloutGroups:
        """The rollouts of a training step, in the step's number format: autocast is a thread's own."""
        with self.trainer.precision_plugin.train_step_context():
            drawn = self.sample(batch.examples, "train", self.rollouts, step=batch.step, answers=self.samples_answers)
        if self.sampler_config.sleep:
            assert self.sampler is not None, "it has just drawn"
            self.sampler.sleep()  # the sync at the end of the step wakes it
        return drawn

    def _backward(self, signal: Tensor, sample: GroupSample, coefficients: Coefficients, scale: float) -> Coefficients:
        """Add a group's gradient, in the unit of the step's scale; zero where it cannot matter in that unit.

        Returns the coefficients that it counts with.
        """
        if (log_unit := self.step_scale.admit(self.log_size(signal, sample))) is None:
            return Coefficients(*map(torch.zeros_like, coefficients))
        # Computed again, since coefficients under e^-745 would be lost in a division afterwards.
        used = self.coefficients(signal, sample._replace(log_unit=log_unit)) if log_unit else coefficients
        sample.group.backward(Coefficients(used.score[0], used.pathwise[0]), scale=scale)
        return coefficients if self.step_scale.kind == "raw" else used

    def _keep(self) -> None:
        """Log the rollouts of the last step, once."""
        groups, self.kept = self.kept, []
        if groups and self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self.log_samples("train", [row for group in groups for row in group_rows(group, self)])

    @property
    def _is_exact(self) -> bool:
        """Whether engine and trainer compute in float32, where they must agree."""
        formats = {self.policy.config.dtype, self.sampler_config.dtype or self.policy.config.dtype}
        return formats == {"float32"} and self.trainer.precision == "32-true"

    # -- hooks -------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Say what will be held in memory before any of it is loaded."""
        if stage == "fit" and self.sampler is None and self._numbers is not None:
            self.print(memory_line(self, self._numbers))
        super().setup(stage)

    def on_fit_start(self) -> None:
        """Begin with the engine at the policy's weights and nothing prefetched but what a checkpoint holds."""
        self.source.close()
        self.source, self._ahead = source_of(self, self._ahead), []
        super().on_fit_start()

    def on_train_start(self) -> None:
        """Refuse to look ahead in a loader that cannot, and keep what training starts from."""
        check_loader(self)
        self.all_or_nothing.begin(self.policy, self.one_optimizer.optimizer)

    def on_train_batch_end(self, *_: Any) -> None:
        """Keep the step's rollouts, if it is time: before a checkpoint of this step takes its name."""
        if due(self.global_step, self.trainer.max_steps):
            self._keep()

    def on_validation_model_eval(self) -> None:
        """Keep the rollouts of the step before a validation, ahead of the checkpoint that callbacks write there."""
        super().on_validation_model_eval()
        self._keep()

    def on_fit_end(self) -> None:
        """End the thread that sampled ahead."""
        self.source.close()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run continues from: the monitors of its course and the step's scale."""
        checkpoint |= {**self.step_log.state_dict(), "log_scale": self.step_scale.log_reference}
        checkpoint["skipped_steps"] = self.all_or_nothing.state_dict()
        if self.sampler_config.lookahead:
            checkpoint["drawn_ahead"] = distributed.gathered(self.source.state())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what :meth:`on_save_checkpoint` added."""
        self.step_log.load_state_dict(checkpoint)
        self.step_scale.log_reference = checkpoint.get("log_scale", -math.inf)
        self._ahead = checkpoint.get("drawn_ahead", [])
        self.all_or_nothing.load_state_dict(checkpoint.get("skipped_steps", self.all_or_nothing.state_dict()))
