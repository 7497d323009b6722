"""The torchmetric under PassAtK, MajorityAtK and MeanScore: a mean over questions, kept as whole numbers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from jqlight.metrics.verifiers import Verifier, judge

_UNIT = 1 << 40
"""Fixed point of the sums: integers add up to the same in every order, so any number of ranks gives the same bits."""


class QuestionMean(Metric):
    """Mean over questions of a number in [0, 1] that a subclass computes in ``count``.

    States are int64 sums (values in units of 2**-40, and the number of questions), summed over ranks; each rank may see
    a different number of questions, or none.

    Args:
        verifier: scores one answer.
        k: samples that a question needs.

    Raises:
        ValueError: k below 1.
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    total: Tensor
    questions: Tensor

    def __init__(self, verifier: Verifier, k: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if k < 1:
            raise ValueError(f"k: given {k}, allowed is 1 or more")
        self.verifier, self.k = verifier, k
        self.add_sum("total")
        self.add_sum("questions")
        self.values: list[float] = []
        """Value of each question that this process has counted, in their order."""

    def add_sum(self, name: str) -> None:
        """A whole-number state that is summed over ranks."""
        self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        predictions: Sequence[Sequence[str]],
        references: Sequence[Sequence[str]],
        scores: Sequence[Sequence[float]] | None = None,
    ) -> None:
        """Count questions.

        Args:
            predictions: per question its sampled answers.
            references: per question its golds.
            scores: per question its samples' scores by the verifier, where they are known; else it is called here.

        Raises:
            ValueError: different numbers of questions, or a question with fewer than k samples.
        """
        check_samples(predictions, references, self.k)
        for i, samples in enumerate(predictions):
            self.count(samples, judge(self.verifier, samples, references[i]) if scores is None else scores[i])

    def count(self, samples: Sequence[str], scores: Sequence[float]) -> None:
        """Count one question by its samples and their scores."""
        raise NotImplementedError

    def add(self, value: float) -> None:
        """Count one question with its value."""
        self.values.append(value)
        self.total += units(value)
        self.questions += 1

    def compute(self) -> Tensor:
        """Mean over questions, a float64 scalar (float32 on devices without float64); NaN without questions."""
        return self.ratio(self.total, self.questions)

    def reset(self) -> None:
        """Forget every question."""
        super().reset()
        self.values = []

    def ratio(self, total: Tensor, count: Tensor) -> Tensor:
        """``total`` (in units) over ``count``; NaN if that is zero."""
        value = int(total) / _UNIT / int(count) if int(count) else float("nan")
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        return torch.tensor(value, dtype=dtype, device=self.device)

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Figure and axes with one value or several (matplotlib needed); without ``val`` that of ``compute()``."""
        return self._plot(val, ax)


def units(value: float) -> int:
    """The value in whole units of 2**-40."""
    return round(value * _UNIT)


def check_samples(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]], k: int) -> None:
    """Refuse what cannot be scored.

    Raises:
        ValueError: different numbers of questions, or a question with fewer than k samples.
    """
    if len(predictions) != len(references):
        raise ValueError(f"got predictions for {len(predictions)} questions and references for {len(references)}")
    fewest = min(map(len, predictions), default=k)
    if fewest < k:
        raise ValueError(
            f"k = {k} needs at least {k} samples per question, got {fewest}; draw more samples, or lower k"
        )
