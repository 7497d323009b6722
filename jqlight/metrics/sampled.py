"""PassAtK, MajorityAtK and MeanScore: metrics over several sampled answers per question."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from jqlight.metrics.base import QuestionMean, units
from jqlight.metrics.verifiers import Verifier, substring_match
from jqlight.metrics.voting import fold, majority_vote


def pass_at_k(n: int, successes: int, k: int) -> float:
    """Probability that k of n samples, drawn without replacement, hold a success: 1 - C(n-c, k) / C(n, k).

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if n - successes < k:
        return 1.0
    miss = 1.0
    for i in range(n - successes + 1, n + 1):
        miss *= 1.0 - k / i
    return 1.0 - miss


class PassAtK(QuestionMean):
    """Share of questions that k samples solve at least once, unbiased from n >= k samples per question.

    ``update(predictions, references)`` takes a list of sampled answers and a list of golds per question; ``compute()``
    gives a float64 scalar in [0, 1]. A sample is a success if its score reaches ``threshold``, which matters for
    verifiers with scores between 0 and 1 only.

    Args:
        k: samples per attempt.
        verifier: scores one answer.
        threshold: smallest score of a success.

    Raises:
        ValueError: k below 1, or (in ``update``) fewer than k samples for a question.
    """

    def __init__(self, k: int, verifier: Verifier = substring_match, *, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(verifier, k, **kwargs)
        self.threshold = threshold

    def count(self, samples: Sequence[str], scores: Sequence[float]) -> None:
        """Count one question by its samples and their scores."""
        self.add(pass_at_k(len(samples), sum(score >= self.threshold for score in scores), self.k))


class MajorityAtK(QuestionMean):
    """Mean score of the answer that a majority vote of k samples elects, from n >= k samples per question.

    Answers that ``normalise`` makes equal vote together, blank ones do not vote, a tie counts its expected value, and
    n > k samples give the expectation over all subsets of size k; see :func:`jqlight.metrics.voting.majority_vote`. A
    question without any answer counts 0. The elected answer's score is the mean over the samples that voted for it.

    Args:
        k: voters.
        verifier: scores one answer.
        normalise: two answers with the same normal form are one.

    Raises:
        ValueError: k below 1, or (in ``update``) fewer than k samples for a question.
    """

    ties: Tensor
    unanswered: Tensor

    def __init__(
        self, k: int, verifier: Verifier = substring_match, normalise: Callable[[str], str] = fold, **kwargs: Any
    ) -> None:
        super().__init__(verifier, k, **kwargs)
        self.normalise = normalise
        self.add_sum("ties")
        self.add_sum("unanswered")
        self.rates: dict[str, Tensor] = {}

    def count(self, samples: Sequence[str], scores: Sequence[float]) -> None:
        """Count one question by its samples and their scores."""
        vote = majority_vote(samples, scores, self.k, self.normalise)
        self.add(vote.score)
        self.ties += units(vote.tie)
        self.unanswered += units(sum(not sample.strip() for sample in samples) / len(samples))

    def compute(self) -> Tensor:
        """Mean score of the elected answers, a float64 scalar; sets :attr:`tie_rate` and :attr:`unanswered_rate`."""
        self.rates = {
            "tie": self.ratio(self.ties, self.questions),
            "unanswered": self.ratio(self.unanswered, self.questions),
        }
        return super().compute()

    @property
    def tie_rate(self) -> Tensor:
        """Share of votes with several leaders, over all ranks; known once ``compute`` has run."""
        return self.rates.get("tie", torch.tensor(float("nan")))

    @property
    def unanswered_rate(self) -> Tensor:
        """Share of samples that are blank, over all ranks; known once ``compute`` has run."""
        return self.rates.get("unanswered", torch.tensor(float("nan")))


class MeanScore(QuestionMean):
    """Mean score over all samples, every question counting alike: a benchmark's EM or F1 in expectation.

    Args:
        verifier: scores one answer.
    """

    def __init__(self, verifier: Verifier, **kwargs: Any) -> None:
        super().__init__(verifier, **kwargs)

    def count(self, samples: Sequence[str], scores: Sequence[float]) -> None:
        """Count one question by its samples and their scores."""
        self.add(sum(scores) / len(scores))
