"""What a training step says about itself: times, diagnostics and alarms, averaged over ranks and logged."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from torch import Tensor

from jqlight.diagnostics import logprob_gap, max_amplified_advantage, update_size
from jqlight.errors import EngineError
from jqlight.escape import EscapeMonitor
from jqlight.estimators import distributed
from jqlight.estimators.alarms import Alarms
from jqlight.estimators.kept_rollouts import KeptGroup
from jqlight.estimators.rollouts import ImportanceRatios
from jqlight.objective import Coefficients
from jqlight.policy import Group
from jqlight.sampling import Rollout
from jqlight.token_format import TokenFormat

if TYPE_CHECKING:
    from jqlight.estimators.module import PolicyModule

# In float32 a healthy engine and trainer differ by about 1e-6 nats; 1e-3 means different weights.
FLOAT32_GAP_LIMIT = 1e-3

_COUNTS = {"train/dead_groups", "train/skipped_groups"}


class StepRecord:
    """What is gathered of one step while its groups come one after the other."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("sample", "score", "update", "sync"), 0.0)
        self.ratios: ImportanceRatios | None = None
        self.rate = 0.0
        """Learning rate of the update; a schedule has moved on when the step is logged."""
        self.begin()

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time that the block takes to ``phase``."""
        start = perf_counter()
        yield
        self.seconds[phase] += perf_counter() - start

    def begin(self) -> None:
        """Begin with no group, or begin again: the time that groups took stays counted."""
        self.gap: float | None = None
        self.groups: list[KeptGroup] = []
        self._signals: list[Tensor] = []
        self._coefficients: list[Coefficients] = []
        if self.ratios is not None:
            self.ratios.restart()

    def add(self, signal: Tensor, coefficients: Coefficients, group: KeptGroup) -> None:
        """Take in a group, its signal and its coefficients, (1, M) each."""
        self.groups.append(group)
        self._signals.append(signal)
        self._coefficients.append(coefficients)

    def compare_engine(self, rollouts: Sequence[Rollout], group: Group) -> None:
        """Take in how far the engine's log-probabilities of a group are from the trainer's."""
        sampled = [r.rationale_logprobs + r.answer_logprobs for r in rollouts]
        if not any(sampled):  # written by people
            return
        ours = [t[: len(s)] for t, s in zip(group.token_logprobs(), sampled, strict=True)]
        self.gap = max(self.gap or 0.0, logprob_gap(sampled, ours))

    def check_engine(self, step: int, device: torch.device) -> None:
        """Refuse a step whose engine and trainer disagree, in float32.

        Raises:
            EngineError: the largest gap is above ``FLOAT32_GAP_LIMIT``.
        """
        if self.gap is not None and self.gap > FLOAT32_GAP_LIMIT:
            rounding = (
                ", or one of the two rounds its products to TF32 (TRITON_F32_DEFAULT is not ieee, or "
                "torch.set_float32_matmul_precision not highest)"
            )
            raise EngineError(
                f"step {step}: engine and trainer disagree, train/logprob_gap is {self.gap:.2g} nats where at "
                f"most {FLOAT32_GAP_LIMIT} is allowed in float32; nothing was updated. The engine may not hold the "
                f"trainer's weights{rounding if device.type == 'cuda' else ''}. Try sampler.engine: transformers, and "
                "run `jqlight doctor`"
            )

    @property
    def has_signal(self) -> bool:
        """Whether any coefficient of the step is not zero."""
        return any(bool((part != 0).any()) for coefficients in self._coefficients for part in coefficients)

    @property
    def signals(self) -> Tensor:
        """Signals of all groups, (B, M)."""
        return torch.cat(self._signals)

    @property
    def coefficients(self) -> Coefficients:
        """Coefficients of all groups, (B, M)."""
        return Coefficients(*(torch.cat(parts) for parts in zip(*self._coefficients, strict=True)))


class StepLog:
    """Logs a module's steps and watches their course for the escape, a collapse and a stall.

    Attributes:
        escape: when the run left its cold start, and whether it collapsed since.
        alarms: whether anything is being learnt.
        out_of_memory: how often a step of this process began again with smaller micro-batches.
    """

    def __init__(self) -> None:
        self.escape = EscapeMonitor()
        self.alarms = Alarms()
        self.out_of_memory = 0
        self._reported: set[str] = set()

    def log(
        self,
        module: "PolicyModule",
        record: StepRecord,
        rollouts: Sequence[Sequence[Rollout]],
        means: dict[str, float],
        grad_norm: float,
    ) -> None:
        """Log one step under ``train/``: ``means`` of this rank are averaged over ranks, peaks maximised."""
        values = {
            f"train/{name}": value for name, value in {**means, **_lengths(rollouts, module.token_format)}.items()
        }
        values |= {f"time/{phase}": seconds for phase, seconds in record.seconds.items()}
        values = distributed.mean(values, module.device)
        for count in _COUNTS & values.keys():
            values[count] *= distributed.world_size()
        peaks = {"train/max_amplified_advantage": max_amplified_advantage(record.coefficients)}
        peaks |= {"alive": float(record.has_signal), "thinks": float(not all(map(_is_empty, _drawn(rollouts))))}
        peaks["out_of_memory"] = float(self.out_of_memory)
        if record.gap is not None:
            peaks["train/logprob_gap"] = record.gap
        peaks = distributed.largest(peaks, module.device)
        values |= {name: value for name, value in peaks.items() if name.startswith("train/")}
        if peaks["out_of_memory"]:
            values["train/out_of_memory"] = peaks["out_of_memory"]
        optimizer = module.one_optimizer.optimizer
        values |= {"train/grad_norm": grad_norm, "train/lr": record.rate}
        values |= self._watch(module, values["train/success"])
        if (size := update_size(optimizer)) is not None:
            values["train/update_size"] = size
        self.alarms.update(module, values, alive=bool(peaks["alive"]), empty=not peaks["thinks"])
        shown = {"train/success": values.pop("train/success")}
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        # Lightning repeats the last value of what is not logged any more; NaN, which our logger leaves out, ends that.
        module.log_dict(dict.fromkeys(self._reported - finite.keys(), math.nan) | finite)
        self._reported |= finite.keys()
        module.log_dict(shown, prog_bar=True)

    def log_skipped(self, module: LightningModule, skipped: int) -> None:
        """Log a step that was passed over: their number so far, and none of what the step before had."""
        self._reported.add("train/skipped_steps")
        module.log_dict(dict.fromkeys(self._reported, math.nan) | {"train/skipped_steps": float(skipped)})
        module.log("train/success", math.nan, prog_bar=True)

    def _watch(self, module: LightningModule, success: float) -> dict[str, float]:
        """Metrics of the escape and of a collapse, which is said on the screen when it begins."""
        step, collapsed = module.global_step, self.escape.collapsed
        self.escape.update(step, success)
        if self.escape.collapsed and not collapsed:
            module.print(
                f"step {step}: collapse. The running mean of train/success fell under a tenth of its best, "
                f"{self.escape.best:.3g}; the best checkpoint so far is kept."
            )
        values = {"train/collapsed": float(self.escape.collapsed)}
        if self.escape.escape_step is not None:
            values["train/escape_step"] = float(self.escape.escape_step)
        return values

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run reports the same escape step from, by the checkpoint's names."""
        return {"escape_monitor": self.escape.state_dict(), "stall_monitor": self.alarms.monitor.state_dict()}

    def load_state_dict(self, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint that holds :meth:`state_dict`; one of an earlier version lacks some of it."""
        if "escape_monitor" in checkpoint:
            self.escape.load_state_dict(checkpoint["escape_monitor"])
        if "stall_monitor" in checkpoint:
            self.alarms.monitor.load_state_dict(checkpoint["stall_monitor"])


def _drawn(rollouts: Sequence[Sequence[Rollout]]) -> list[Rollout]:
    return [rollout for group in rollouts for rollout in group]


def _is_empty(rollout: Rollout) -> bool:
    """Whether a sampled rationale is nothing but its end; one that people wrote has no log-probabilities."""
    return len(rollout.rationale_ids) == len(rollout.rationale_logprobs) <= 1 and not rollout.truncated


def _lengths(rollouts: Sequence[Sequence[Rollout]], form: TokenFormat) -> dict[str, float]:
    drawn = _drawn(rollouts)
    return {
        "thinking_tokens": sum(len(r.rationale_ids) for r in drawn) / len(drawn),
        "truncated": sum(r.truncated for r in drawn) / len(drawn),
        "empty_rationales": sum(form.is_blank(r.rationale_ids) for r in drawn) / len(drawn),
    }
