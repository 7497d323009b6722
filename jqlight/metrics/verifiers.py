"""Verifiers: how right a sampled answer is, as a score in [0, 1].

Each is called ``(prediction, references)`` and gives the best score over the references.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Verifier = Callable[[str, Sequence[str]], float]


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the prediction equals a reference, both stripped (the training reward of Lin & Ie, 2026); else 0.0."""
    return float(prediction.strip() in {reference.strip() for reference in references})


def substring_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if a reference, stripped and not empty, is a substring of the prediction, case and all; else 0.0.

    The evaluation of Lin & Ie (2026), kept literally, so "no" is found inside "north"; :func:`word_match` is the
    strict twin.
    """
    return float(any(reference.strip() and reference.strip() in prediction for reference in references))


@dataclass(frozen=True)
class on_answer:
    """The verifier that judges against the first reference, y* itself, and leaves aliases aside."""

    verifier: Verifier

    def __call__(self, prediction: str, references: Sequence[str]) -> float:
        """Score in [0, 1] against ``references[0]``."""
        return self.verifier(prediction, references[:1])
