"""The training step that all estimators share: reading ``Estimator.training_step`` is reading Algorithm 1.

sample rationales -> score -> coefficients -> weighted log-likelihood backward -> optimizer step -> sync the engine
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from time import perf_counter
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from jqlight.benchmarks import Example
from jqlight.diagnostics import EscapeMonitor, StallMonitor, logprob_gap, max_amplified_advantage, update_size
from jqlight.errors import ConfigError, EngineError, NonFiniteError
from jqlight.estimators import distributed
from jqlight.estimators.lookahead import ImportanceRatios, Lookahead, RolloutGroups, StepBatch
from jqlight.estimators.module import EvaluationMixin
from jqlight.estimators.scale import StepScale
from jqlight.objective import Coefficients
from jqlight.policy import Continuation, Group, Policy, PolicyConfig
from jqlight.sampling import Rollout, Sampler, SamplerConfig, rollout_seed
from jqlight.token_format import TokenFormat

# In float32 a healthy engine and trainer differ by about 1e-6 nats; 1e-3 means different weights.
FLOAT32_GAP_LIMIT = 1e-3

MOST_ROLLOUTS = 100_000
"""Largest number of rollouts or samples a prompt; a slip of the keyboard beyond it would fill the memory first."""


class Estimator(EvaluationMixin):
    """A policy trained on one gradient estimator of the J_Q family, with its sampling engine embedded.

    Optimisation is manual, since a batch's gradient is accumulated group by group: one optimizer step and one weight
    sync per batch, so rollouts are always samples of the policy that is trained. With ``sampler.lookahead`` the next
    batch is sampled meanwhile, from the weights before the step, and its coefficients carry importance ratios.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        rollouts: M, rationales per prompt.
        samples: samples per prompt in evaluation, the k of pass@k and maj@k.
        max_grad_norm: gradient norm above which the gradient is scaled down; inf for never.
        seed: of all sampling; None takes ``seed_everything``.

    Raises:
        ConfigError: rollouts, samples or max_grad_norm out of range.
    """

    samples_answers: ClassVar[bool]
    """Whether training draws an answer behind each rationale."""

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        rollouts: int = 32,
        samples: int = 16,
        max_grad_norm: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"rollouts": rollouts, "samples": samples}.items():
            if not 1 <= value <= MOST_ROLLOUTS:
                raise ConfigError(
                    f"model.{name}: given {value}, allowed is 1 or more, up to {MOST_ROLLOUTS}: all of a prompt's are "
                    "held in memory at once"
                )
        if not max_grad_norm > 0:
            raise ConfigError(f"model.max_grad_norm: given {max_grad_norm}, allowed is a number above 0, inf for none")
        self.automatic_optimization = False
        self.policy = Policy(policy)
        self.sampler_config = sampler
        self.sampler: Sampler | None = None
        self.evaluator = None
        self.rollouts, self.samples, self.max_grad_norm, self.seed = rollouts, samples, max_grad_norm, seed
        self.monitor = EscapeMonitor()
        self.lookahead = Lookahead()
        self.step_scale = StepScale()
        self.stall = StallMonitor()
        self._seconds: dict[str, float] = {}
        self._reported: set[str] = set()
        self._remember(policy=asdict(policy), sampler=asdict(sampler), rollouts=rollouts, samples=samples, seed=seed)

    def _remember(self, **settings: object) -> None:
        """Keep ``settings`` (primitives only) as hyper-parameters: in every checkpoint and in the tracker."""
        self.save_hyperparameters({"estimator": type(self).__name__, **self.hparams, **settings})

    @property
    def token_format(self) -> TokenFormat:
        """The output format in the policy's own token ids; needs the tokenizer's files only."""
        return self.policy.format

    # -- what an estimator decides -------------------------------------------------------------------------------

    @abstractmethod
    def continuation(self, example: Example, rollout: Rollout) -> Continuation:
        """The tokens behind the prompt whose likelihood is weighted."""

    @abstractmethod
    def signal(self, example: Example, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        """What the coefficients are made of, (M,) float64: log-weights (log-space) or rewards."""

    @abstractmethod
    def coefficients(
        self,
        signal: Tensor,
        example: Example,
        rollouts: Sequence[Rollout],
        group: Group,
        log_ratio: Tensor | None = None,
    ) -> Coefficients:
        """Coefficients (1, M) of one group from its signal (1, M); most estimators need nothing else.

        ``log_ratio`` is None for rollouts of the policy itself; for rollouts sampled a step earlier the logs of
        their truncated importance ratios, (1, M), see ``jqlight.objective.truncated``.
        """

    def in_step_units(
        self,
        coefficients: Coefficients,
        signal: Tensor,
        example: Example,
        rollouts: Sequence[Rollout],
        group: Group,
        log_ratio: Tensor | None,
    ) -> Coefficients | None:
        """A group's coefficients in the unit of this step's scale; None for a group that need not be run backward."""
        return coefficients

    @abstractmethod
    def diagnose(self, signals: Tensor, coefficients: Coefficients) -> dict[str, float]:
        """Diagnostics of the whole batch, (B, M); must hold ``success``, the estimate of P."""

    # -- the step --------------------------------------------------------------------------------------------------

    def training_step(self, batch: list[Example], batch_idx: int) -> None:
        """One optimizer step on the mean gradient over ``batch``. Lin & Ie (2026), Algorithm 1.

        Raises:
            NonFiniteError: a NaN log-probability or gradient; the weights are not touched.
            EngineError: the engine's log-probabilities are not the trainer's.
        """
        self._seconds = dict.fromkeys(("sample", "score", "update", "sync"), 0.0)
        prompts = distributed.total(len(batch), self.device)
        self._zero_grad()
        self.step_scale.begin(self.policy.parameters())

        step_batch = StepBatch(self.global_step, batch)
        prefetched = self.lookahead.take(step_batch)
        with self._timed("sample"):
            groups = self._sample_groups(step_batch) if prefetched is None else prefetched
        ratios = None if prefetched is None else ImportanceRatios(self.sampler_config.max_importance_ratio)
        signals, weights, gap = [], [], 0.0
        with self._prefetching():
            for example, rollouts in zip(batch, groups, strict=True):
                group = self.policy.group(example.prompt_ids, [self.continuation(example, r) for r in rollouts])
                with self._timed("score"):
                    signal = self._checked(self.signal(example, rollouts, group), example)
                    log_ratio = None if ratios is None else ratios.of(rollouts, group)
                    coefficients = self.coefficients(signal.unsqueeze(0), example, rollouts, group, log_ratio)
                with self._timed("update"):
                    counted = self.in_step_units(coefficients, signal.unsqueeze(0), example, rollouts, group, log_ratio)
                    if counted is not None:
                        group.backward(Coefficients(counted.score[0], counted.pathwise[0]), scale=1 / prompts)
                if ratios is None:
                    with self._timed("score"):
                        # After backward, whose forward has the log-probs of most rows: only the others run for this.
                        gap = max(gap, self._gap(rollouts, group))
                signals.append(signal)
                weights.append(coefficients)
            self._check_gap(gap)
            with self._timed("update"):
                self.step_scale.finish(self.device)
                norm = self._optimizer_step()
        with self._timed("sync"):
            self.sync_engine()
        stacked = Coefficients(*(torch.cat(parts) for parts in zip(*weights, strict=True)))
        means = self.diagnose(torch.stack(signals), stacked) | self._staleness(ratios) | self.step_scale.metrics()
        peaks = {"max_amplified_advantage": max_amplified_advantage(stacked)}
        if ratios is None:
            peaks["logprob_gap"] = gap
        self._log_step(groups, means, peaks, norm)

    def sample(
        self, batch: Sequence[Example], stage: str, n: int, *, step: int = 0, answers: bool = True
    ) -> list[list[Rollout]]:
        """``n`` rollouts per example; each one's seed is a function of (run seed, stage, step, example id, m) alone."""
        assert self.sampler is not None, "setup() builds the sampler"
        decoding = self.sampler_config.training if stage == "train" else self.sampler_config.evaluation
        seeds = [[rollout_seed(self.run_seed, stage, step, e.id, m) for m in range(n)] for e in batch]
        return self.sampler.sample([e.prompt_ids for e in batch], seeds, answers=answers, decoding=decoding)

    def sync_engine(self) -> None:
        """Give the engine the policy's weights."""
        assert self.sampler is not None, "setup() builds the sampler"
        self.sampler.sync(self.policy.weights())

    def on_fit_start(self) -> None:
        """Begin with the engine at the policy's weights and nothing prefetched."""
        self.lookahead.discard()
        super().on_fit_start()

    def on_train_start(self) -> None:
        """Refuse to look ahead in a loader that cannot."""
        if self.sampler_config.lookahead and not hasattr(self.trainer.train_dataloader, "peek"):
            raise ConfigError(
                f"sampler.lookahead: given 1, allowed is 0 with {type(self.trainer.train_dataloader).__name__}: a "
                "training loader must have peek(), as jqlight.benchmarks.loaders.TrainLoader has"
            )

    def on_fit_end(self) -> None:
        """End the thread that prefetched."""
        self.lookahead.close()

    # -- parts of the step -------------------------------------------------------------------------------------------

    def _sample_groups(self, step_batch: StepBatch) -> RolloutGroups:
        return self.sample(step_batch.batch, "train", self.rollouts, step=step_batch.step, answers=self.samples_answers)

    def _prefetch(self, step_batch: StepBatch) -> RolloutGroups:
        with self.trainer.precision_plugin.train_step_context():  # autocast is a thread's own
            return self._sample_groups(step_batch)

    @contextmanager
    def _prefetching(self) -> Iterator[None]:
        """A block during which the next batch is sampled in a thread, if there is one; ends when both have ended."""
        step_batch = self._next_step_batch() if self.sampler_config.lookahead else None
        if step_batch is not None:
            self.lookahead.start(step_batch, self._prefetch, self.device)
        try:
            yield
            with self._timed("sample"):
                self.lookahead.finish()
        except BaseException:
            self.lookahead.close()
            raise

    def _next_step_batch(self) -> StepBatch | None:
        """The next step; None where this one is the last of its epoch or of the run."""
        step = self.global_step + 1
        if step == self.trainer.max_steps or self.trainer.should_stop:
            return None
        batch = self.trainer.train_dataloader.peek()  # type: ignore[union-attr]
        return None if batch is None else StepBatch(step, batch)

    def _staleness(self, ratios: ImportanceRatios | None) -> dict[str, float]:
        """How old the rollouts are in optimizer steps, and their importance ratios; nothing without lookahead."""
        if not self.sampler_config.lookahead:
            return {}
        return {"staleness": 0.0} if ratios is None else {"staleness": 1.0, **ratios.metrics()}

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self._seconds[phase] = self._seconds.get(phase, 0.0) + perf_counter() - start

    def _zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    @staticmethod
    def _checked(signal: Tensor, example: Example) -> Tensor:
        if signal.isnan().any():
            raise NonFiniteError(
                f"example {example.id}: the policy gave NaN for its log-probability; the weights were not updated. "
                "Lower optimizer.lr, or use policy.dtype: float32"
            )
        return signal

    def _optimizer_step(self) -> float:
        """Sum the ranks' gradients, clip, step the optimizer and its schedule; the norm before clipping."""
        distributed.sum_gradients(self.policy)
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm).item()
        if not math.isfinite(norm):
            raise NonFiniteError(
                f"step {self.global_step}: the gradient's norm is {norm}; the weights were not updated. "
                "Lower optimizer.lr, or use policy.dtype: float32"
            )
        optimizer = self.optimizers()
        optimizer.step()  # type: ignore[union-attr]
        scheduler = self.lr_schedulers()
        if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):  # that one follows validations
            scheduler.step()  # type: ignore[union-attr]
        return norm

    def _gap(self, rollouts: Sequence[Rollout], group: Group) -> float:
        sampled = [r.rationale_logprobs + r.answer_logprobs for r in rollouts]
        ours = group.token_logprobs()
        return logprob_gap(sampled, [t[: len(s)] for t, s in zip(ours, sampled, strict=True)])

    def _check_gap(self, gap: float) -> None:
        formats = {self.policy.config.dtype, self.sampler_config.dtype or self.policy.config.dtype}
        exact = formats == {"float32"} and self.trainer.precision == "32-true"
        if exact and gap > FLOAT32_GAP_LIMIT:
            raise EngineError(
                f"step {self.global_step}: engine and trainer disagree, train/logprob_gap is {gap:.2g} nats where at "
                f"most {FLOAT32_GAP_LIMIT} is allowed in float32. The engine does not hold the trainer's weights; "
                "nothing was updated. Try sampler.engine: transformers, and run `jqlight doctor`"
            )

    def _log_step(self, groups: RolloutGroups, means: dict[str, float], peaks: dict[str, float], norm: float) -> None:
        """Log one step: ``means`` and ``peaks`` of this rank, averaged and maximised over ranks, under ``train/``."""
        everything = [r for rollouts in groups for r in rollouts]
        values = {f"train/{name}": value for name, value in means.items()}
        values["train/thinking_tokens"] = sum(len(r.rationale_ids) for r in everything) / len(everything)
        values["train/truncated"] = sum(r.truncated for r in everything) / len(everything)
        values |= {f"time/{phase}": seconds for phase, seconds in self._seconds.items()}
        values = distributed.mean(values, self.device)
        for count in {"train/dead_groups", "train/skipped_groups"} & values.keys():
            values[count] *= distributed.world_size()
        values |= distributed.largest({f"train/{name}": value for name, value in peaks.items()}, self.device)
        values["train/grad_norm"] = norm
        optimizer = self.optimizers().optimizer  # type: ignore[union-attr]
        values["train/lr"] = optimizer.param_groups[0]["lr"]
        if (size := update_size(optimizer)) is not None:
            values["train/update_size"] = size
        self._watch(values["train/success"], size)
        if self.monitor.escape_step is not None:
            values["train/escape_step"] = float(self.monitor.escape_step)
        values["train/collapsed"] = float(self.monitor.collapsed)
        shown = {"train/success": values.pop("train/success")}
        reported = {name: value for name, value in values.items() if math.isfinite(value)}
        # Lightning repeats the last value of what is not logged any more; NaN, which our logger leaves out, ends that.
        self.log_dict(dict.fromkeys(self._reported - reported.keys(), math.nan) | reported)
        self._reported |= reported.keys()
        self.log_dict(shown, prog_bar=True)

    def _watch(self, success: float, size: float | None) -> None:
        if self.stall.update(size):
            self.print(
                f"step {self.global_step}: nothing is being learnt. For {self.stall.window} steps weights have hardly "
                f"moved (train/update_size {size:.1g}): the gradient is below the optimizer's epsilon. "
                "Ways out: --model.scale batch (GARL and PAFT), a larger model.q, or a smaller optimizer.eps"
            )
        before = self.monitor.collapsed
        self.monitor.update(self.global_step, success)
        if self.monitor.collapsed and not before:
            self.print(
                f"step {self.global_step}: collapse. The running mean of train/success fell under a tenth of its best, "
                f"{self.monitor.best:.3g}; the best checkpoint so far is kept."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run continues from: the escape monitor, the stall monitor and the step's scale."""
        checkpoint["escape_monitor"] = self.monitor.state_dict()
        checkpoint["stall_monitor"] = self.stall.state_dict()
        checkpoint["log_scale"] = self.step_scale.log_reference

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what :meth:`on_save_checkpoint` added; checkpoints of earlier versions lack some of it."""
        if "escape_monitor" in checkpoint:
            self.monitor.load_state_dict(checkpoint["escape_monitor"])
        if "stall_monitor" in checkpoint:
            self.stall.load_state_dict(checkpoint["stall_monitor"])
        self.step_scale.log_reference = checkpoint.get("log_scale", -math.inf)
