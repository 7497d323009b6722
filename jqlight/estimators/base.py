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
from torch.optim.lr_scheduler import ReduceLROnPlateau

from jqlight.benchmarks import Example
from jqlight.errors import ConfigError, NonFiniteError
from jqlight.estimators import distributed
from jqlight.estimators.all_or_nothing import AllOrNothing, OnNonFinite
from jqlight.estimators.kept_rollouts import KeptGroup, due, group_rows
from jqlight.estimators.memory_plan import plan_of
from jqlight.estimators.module import PolicyModule, check_count
from jqlight.estimators.rollouts import ImportanceRatios, Lookahead, RolloutGroups, RolloutSource, StepBatch
from jqlight.estimators.scale import StepScale
from jqlight.estimators.step_metrics import StepLog, StepRecord
from jqlight.machine import free_memory
from jqlight.objective import Coefficients
from jqlight.policy import Continuation, Group, PolicyConfig
from jqlight.policy.memory import is_out_of_memory
from jqlight.sampling import Rollout, SamplerConfig
from jqlight.tracking.checkpoint_files import not_finite

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

    def log_size(self, signal: Tensor, sample: GroupSample) -> float | None:
        """Log of a group's largest coefficient, nats, from its signal (1, M); None where a step has no scale."""
        return None

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
        record = StepRecord()
        prompts = distributed.total(len(batch), self.device)
        with record.timed("sample"):
            rollouts, ratios = self.source.rollouts(StepBatch(self.global_step, batch))
        with self.source.prefetching(self._following(), record.timed("sample")):
            problem = self._gradient(batch, rollouts, ratios, record, scale=1 / prompts)
            if self._is_exact and not problem:
                record.check_engine(self.global_step, self.device)
            record.rate = self.one_optimizer.param_groups[0]["lr"]
            with record.timed("update"):
                norm = self._optimizer_step(problem)
        with record.timed("sync"):
            self.sync_engine()
        if norm is None:
            self.kept = []
            self.step_log.log_skipped(self, self.all_or_nothing.skipped)
            return
        means = self.diagnose(record.signals, record.coefficients)
        self.step_log.log(
            self, record, rollouts, {**means, **self.source.metrics(ratios), **self.step_scale.metrics()}, norm
        )

    def _gradient(
        self,
        batch: list[Example],
        rollouts: RolloutGroups,
        ratios: ImportanceRatios | None,
        record: StepRecord,
        scale: float,
    ) -> str | None:
        """The sum over groups of their gradients times ``scale``; what is not finite, where something is.

        Where memory runs out all of it is computed again, with smaller micro-batches.
        """
        while True:
            self._begin_step()
            try:
                for example, drawn in zip(batch, rollouts, strict=True):
                    if problem := self._add_group(example, drawn, ratios, record, scale):
                        return problem
                return None
            except (RuntimeError, MemoryError) as error:
                self._shrink(error)
            record.restart()
            if ratios is not None:
                ratios.restart()

    def _add_group(
        self, example: Example, drawn: list[Rollout], ratios: ImportanceRatios | None, record: StepRecord, scale: float
    ) -> str | None:
        """Add one group's gradient; what is not finite, where something is, before anything is added."""
        with record.timed("score"):
            group = self.policy.group(example.prompt_ids, [self.continuation(example, r) for r in drawn])
            signal = self.signal(example, drawn, group).unsqueeze(0)
            if problem := self._not_finite(signal, example):
                return problem
            sample = GroupSample(example, drawn, group, None if ratios is None else ratios.of(drawn, group))
            coefficients = self.coefficients(signal, sample)
        with record.timed("update"):
            used = self._backward(signal, sample, coefficients, scale)
        record.add(signal, coefficients)
        self.kept.append(KeptGroup(example, drawn, used, self.told(signal[0], group)))
        if ratios is None:
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
            return self.sample(batch.examples, "train", self.rollouts, step=batch.step, answers=self.samples_answers)

    def _begin_step(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None
        self.step_scale.begin(self.policy.parameters())
        self.kept = []

    def _following(self) -> StepBatch | None:
        """The next step, for a source that prefetches; None where this one is the last of its epoch or of the run."""
        step = self.global_step + 1
        if not self.sampler_config.lookahead or step == self.trainer.max_steps or self.trainer.should_stop:
            return None
        # on_train_start has made sure that this loader can.
        batch = self.trainer.train_dataloader.peek()  # type: ignore[union-attr]
        return None if batch is None else StepBatch(step, batch)

    def _not_finite(self, signal: Tensor, example: Example) -> str | None:
        """What is wrong with a group's signal, and the weight that is to blame; None where nothing is."""
        if not (signal.isnan() | (signal == math.inf)).any():
            return None
        weight = not_finite({"state_dict": self.state_dict()})
        blamed = f", since {weight} is not finite" if weight else ""
        what = "reward" if self.samples_answers else "log-probability"
        return f"example {example.id}: a {what} is {signal.max().item()}{blamed}"

    def _backward(self, signal: Tensor, sample: GroupSample, coefficients: Coefficients, scale: float) -> Coefficients:
        """Add a group's gradient, in the unit of the step's scale; zero where it cannot matter in that unit.

        Returns the coefficients that it was made with.
        """
        log_size = self.log_size(signal, sample) if self.step_scale.kind != "raw" else None
        if log_size is not None:
            if (log_unit := self.step_scale.admit(log_size)) is None:
                return Coefficients(*map(torch.zeros_like, coefficients))
            # Computed again, since coefficients under e^-745 would be lost in a division afterwards.
            coefficients = self.coefficients(signal, sample._replace(log_unit=log_unit))
        sample.group.backward(Coefficients(coefficients.score[0], coefficients.pathwise[0]), scale=scale)
        return coefficients

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

    def _optimizer_step(self, problem: str | None) -> float | None:
        """The optimizer's step with its schedule's, on all ranks or on none; the gradient's norm before clipping.

        None where the step was skipped: it counts as a step, but nothing has moved.
        """
        step, reference = self.global_step, self.step_scale.log_reference
        try:
            self._agree(problem)
            norm = self._step()
        except NonFiniteError as error:
            self.step_scale.log_reference = reference
            self.print(self.all_or_nothing.undo(f"step {step}: {error}"))
            if self.global_step == step:  # Lightning counts what optimizers are asked for
                progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
                progress.increment_ready()
                progress.increment_completed()
            return None
        self.all_or_nothing.done()
        scheduler = self.lr_schedulers()
        if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):  # that one follows validations
            scheduler.step()  # type: ignore[union-attr]  # one, not a list: one optimizer
        return norm

    def _step(self) -> float:
        """Sum the ranks' gradients, clip, step the optimizer; the norm before clipping."""
        self.step_scale.finish(self.device)
        distributed.sum_gradients(self.policy)
        named = {name: p for name, p in self.policy.named_parameters() if p.requires_grad}
        gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
        norm = torch.nn.utils.get_total_norm(gradients.values())
        if not math.isfinite(norm):
            worst = not_finite({"state_dict": gradients})
            self._agree(f"the gradient's norm is {norm}" + (f", first in {worst}" if worst else ""))
        torch.nn.utils.clip_grads_with_norm_(named.values(), self.max_grad_norm, norm)
        self.one_optimizer.step()
        spoilt = self.all_or_nothing.spoilt()
        self._agree(f"{spoilt} was not finite after the update" if spoilt else None)
        return norm.item()

    def _agree(self, problem: str | None) -> None:
        """Raise NonFiniteError on every rank where one has a problem."""
        if found := distributed.first(problem, self.device):
            raise NonFiniteError(found)

    # -- hooks -------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Say what will be held in memory before any of it is loaded."""
        if stage == "fit" and self.sampler is None and self._numbers is not None:
            plan = plan_of(
                self.policy,
                self.sampler_config,
                self.optimizer,
                numbers=self._numbers,
                prompt=self.benchmark.max_prompt_tokens,
                rollouts=self.rollouts,
                mixed=self.trainer.precision == "bf16-mixed",
                device=self.device,
            )
            self.print(plan.text(free_memory(self.device)))
        super().setup(stage)

    def on_fit_start(self) -> None:
        """Begin with the engine at the policy's weights and nothing prefetched but what a checkpoint holds."""
        self.source.close()
        config = self.sampler_config
        self.source = RolloutSource(self.draw)
        if config.lookahead:
            # Of as many ranks as now; with others, each has other examples.
            ahead = self._ahead[self.global_rank] if len(self._ahead) == self.trainer.world_size else None
            self.source = Lookahead(self.draw, ahead)
        self._ahead = []
        super().on_fit_start()

    def on_train_start(self) -> None:
        """Refuse to look ahead in a loader that cannot, and keep what training starts from."""
        if self.sampler_config.lookahead and not hasattr(self.trainer.train_dataloader, "peek"):
            raise ConfigError(
                f"sampler.lookahead: given 1, allowed is 0 with {type(self.trainer.train_dataloader).__name__}: a "
                "training loader must have peek(), as jqlight.benchmarks.loaders.TrainLoader has"
            )
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
