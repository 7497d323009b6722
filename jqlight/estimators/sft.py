"""SFT: the likelihood of the gold answer, behind no rationale or behind the data's own."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from jqlight.benchmarks import Example
from jqlight.errors import ConfigError
from jqlight.estimators.base import Estimator, GroupSample
from jqlight.estimators.rollouts import RolloutGroups, StepBatch
from jqlight.objective import Coefficients
from jqlight.policy import Continuation, Group, PolicyConfig
from jqlight.sampling import Rollout, SamplerConfig


class SFT(Estimator):
    """Supervised fine-tuning on one written output per prompt: rationale, end of thinking, gold answer.

    Nothing is sampled in training, so there is no M. The loss is -log p of the whole output given the prompt, summed
    over its tokens; the end of thinking is one of them, since evaluation samples freely and would otherwise see a
    rationale of the starting model where this one was trained to answer at once.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets, for evaluation.
        rationale: empty (thinking is closed at once: answer-only SFT) or gold (the data's own, where they have one).
        **settings: those of :class:`Estimator`.

    Raises:
        ConfigError: another rationale, or what :class:`Estimator` refuses; once the data are read, one without a
            rationale.
    """

    samples_answers = False
    decided: ClassVar[tuple[str, ...]] = ("rollouts",)
    """Settings of :class:`Estimator` that it does not pass on."""

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        *,
        rationale: Literal["empty", "gold"] = "empty",
        **settings: Any,
    ) -> None:
        super().__init__(policy, sampler, rollouts=1, **settings)
        if rationale not in ("empty", "gold"):
            raise ConfigError(f"model.rationale: given {rationale!r}, allowed are empty and gold")
        self.rationale = rationale
        self._remember(rationale=rationale)

    def setup(self, stage: str) -> None:
        """Refuse data without rationales where they are to be learnt, before an engine starts."""
        if stage == "fit" and self.rationale == "gold":
            for example in self.benchmark.examples("train"):
                if not example.rationale:
                    raise ConfigError(
                        f"model.rationale: given gold, but {type(self.benchmark).__name__} has no rationale for "
                        f"{example.id}; allowed is empty, or data whose items have one, as TwoHop's do"
                    )
        super().setup(stage)

    def draw(self, batch: StepBatch) -> RolloutGroups:
        """The output of each example that is to be learnt; no engine is asked."""
        return [[Rollout(self._written(example), [], [])] for example in batch.examples]

    def _written(self, example: Example) -> list[int]:
        gold = example.rationale if self.rationale == "gold" else ""
        ids = self.token_format.encode_rationale(gold, example.prompt_ids)
        if (unknown := self.token_format.tokenizer.unk_token_id) is not None and unknown in ids:
            raise ConfigError(
                f"model.rationale: given gold, but the model's tokenizer lacks a part of that of {example.id}; allowed "
                "is a rationale that it can write, or empty"
            )
        return ids

    def continuation(self, example: Example, rollout: Rollout) -> Continuation:
        """The written rationale and the gold answer y*."""
        return Continuation(rollout.rationale_ids, [], list(example.target_ids))

    def signal(self, example: Example, rollouts: Sequence[Rollout], group: Group) -> Tensor:
        """log p(y*|x*, z) behind the written rationale, (1,), nats."""
        return group.log_answer().cpu()

    def coefficients(self, signal: Tensor, sample: GroupSample) -> Coefficients:
        """1 for every token of the output."""
        return Coefficients(torch.ones_like(signal), torch.ones_like(signal))

    def diagnose(self, signals: Tensor, coefficients: Coefficients) -> dict[str, float]:
        """Mean of p(y*|x*, z) behind the written rationale as ``success``, and of its log."""
        return {"success": signals.exp().mean().item(), "log_success": signals.mean().item()}
