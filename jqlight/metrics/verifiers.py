"""Verifiers: how right a sampled answer is, as a score in [0, 1].

Each is called ``(prediction, references)`` and gives the best score over the references. A prediction of more than
:data:`MAX_CHARACTERS` scores 0, so that no input takes long; every verifier's time is linear in the text.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jqlight.metrics.numbers import Number, numbers_in, plain, whole_number
from jqlight.metrics.voting import fold

Verifier = Callable[[str, Sequence[str]], float]

MAX_CHARACTERS = 20_000
"""Longest prediction that is judged; an answer budget of 128 tokens is a few hundred characters."""

COARSEST = 0.05
"""Largest relative error that rounding may excuse in a plain number: "1" is not 1.4."""


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the prediction equals a reference, both stripped (the training reward of Lin & Ie, 2026); else 0.0."""
    return float(prediction.strip() in {reference.strip() for reference in references})


def substring_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if a reference, stripped and not empty, is a substring of the prediction, case and all; else 0.0.

    The evaluation of Lin & Ie (2026), kept literally, so "no" is found inside "north"; :func:`word_match` is the
    strict twin.
    """
    if len(prediction) > MAX_CHARACTERS:
        return 0.0
    return float(any(reference.strip() and reference.strip() in prediction for reference in references))


def word_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if a reference is in the prediction as whole words, case aside; else 0.0.

    The strict twin of :func:`substring_match`: no letter or digit may touch the reference, and a number may not be part
    of a longer one ("5" is not in "3.5", "1,5" or "-5"). "yes" and "no" must be the answer themselves: "no, it is not"
    is no, "no idea" and "there is no other" are not.
    """
    if len(prediction) > MAX_CHARACTERS:
        return 0.0
    text = fold(prediction)
    golds = [fold(reference) for reference in references if reference.strip()]
    return float(any(_closed(prediction) == gold if gold in _CLOSED else _has_words(text, gold) for gold in golds))


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over the multisets of folded, white-space separated tokens.

    Best over the references; 1.0 if both sides are empty. The benchmarks' own F1 are in
    :mod:`jqlight.metrics.official`.
    """
    if len(prediction) > MAX_CHARACTERS:
        return 0.0
    return max((overlap_f1(fold(prediction).split(), fold(r).split()) for r in references), default=0.0)


def numeric_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the prediction states a reference's value to the digits that it shows; else 0.0.

    The last number of the prediction counts. It may be rounded: the reference must be within half a unit of its last
    digit, for a number without percent sign also within :data:`COARSEST` of it; a prediction of 0 means 0. A percentage
    is read in points or as a fraction ("12.5 %" is 12.5 or 0.125), a scale word is applied or not ("3 million" is 3 or
    3e6). "(4.2)" is -4.2; signs must agree. LaTeX, bold face, currencies and Unicode's signs are read. "yes" and "no"
    as in :func:`word_match`; another reference that is no number is compared with all of the prediction, case and
    outer punctuation aside.
    """
    if len(prediction) > MAX_CHARACTERS:
        return 0.0
    return float(any(_states_value(prediction, reference) for reference in references))


def judge(verifier: Verifier, samples: Sequence[str], references: Sequence[str]) -> list[float]:
    """The verifier's score of each sample of one question."""
    return [verifier(sample, references) for sample in samples]


def overlap_f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two token multisets; 1.0 if both are empty, 0.0 if one is."""
    if not predicted or not gold:
        return float(not predicted and not gold)
    same = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * same / (len(predicted) + len(gold))


@dataclass(frozen=True)
class _Restricted:
    verifier: Verifier
    last: bool

    def __call__(self, prediction: str, references: Sequence[str]) -> float:
        return self.verifier(prediction, references[-1:] if self.last else references[:1])


def on_answer(verifier: Verifier) -> Verifier:
    """A verifier that judges by the first reference, y* itself, and leaves aliases aside."""
    return _Restricted(verifier, last=False)


def reads_aliases(verifier: Verifier) -> bool:
    """Whether the verifier judges by more than the first reference."""
    return not isinstance(verifier, _Restricted) or verifier.last


def on_value(verifier: Verifier) -> Verifier:
    """A verifier that judges by the last reference: FinQA's executed value."""
    return _Restricted(verifier, last=True)


_CLOSED = ("yes", "no")
# The first clause is the word ("No. 5" is a number), or the last one is, or what "the answer is".
_BEHIND = r"(?:it|they|he|she|because|since)\b"
_FIRST_CLAUSE = re.compile(
    rf"[\s\"'“‘_(\[#>-]{{0,6}}(yes|no)(?=[\s\"'”’_)\]]{{0,4}}(?:$|[,;:!?—–]|-\s|\.(?!\s?\d))|\s(?:{_BEHIND}|\())"
)
_LAST_CLAUSE = re.compile(r"(?:[,.;:!?]|\banswer(?: is|\s?=)?)\s?(?:so,? )?[\"'“‘_(]{0,4}(yes|no)[\"'”’_).!]{0,4}$")
_STATED = re.compile(rf"\banswer is\s?[\"'“‘_(]{{0,4}}(yes|no)(?=[\"'”’_)]{{0,4}}(?:[,;:!?.](?!\s?\d)|\s{_BEHIND}))")


def _closed(answer: str) -> str | None:
    """The "yes" or "no" that an answer gives, LaTeX and markup aside; None where it gives none, as in "no idea"."""
    text = plain("; ".join(line for line in answer.splitlines() if line.strip())).strip()
    match = _FIRST_CLAUSE.match(text) or _LAST_CLAUSE.search(text) or _STATED.search(text)
    return match[1] if match else None


def _has_words(text: str, reference: str) -> bool:
    start = text.find(reference)
    while start >= 0:
        if _ends_word(text, start, start + len(reference), reference):
            return True
        start = text.find(reference, start + 1)
    return False


def _ends_word(text: str, start: int, end: int, reference: str) -> bool:
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if (reference[0].isalnum() and before[-1:].isalnum()) or (reference[-1].isalnum() and after[:1].isalnum()):
        return False
    if reference[0].isdigit() and re.search(r"\d[.,]$|-$", before):
        return False
    return not (reference[-1].isdigit() and re.match(r"[.,]\d", after))


def _states_value(prediction: str, reference: str) -> bool:
    gold = whole_number(reference)
    if gold is None:
        text, wanted = fold(prediction), fold(reference)
        return bool(text) and (text.strip(".,;:!?\"'*") == wanted or _closed(prediction) == wanted)
    found = numbers_in(prediction)
    return bool(found) and _agrees(found[-1], gold)


def _agrees(written: Number, gold: Number) -> bool:
    # Golds such as exe_ans are rounded to five decimals themselves: 5e-6, and 100 times that read in points.
    for scale in {1.0, written.scale}:
        half_unit = 0.5 * 10.0**-written.decimals * scale
        value = written.value * scale
        if written.value == 0:
            if abs(gold.literal) < 5e-6:
                return True
        elif written.percent:
            readings = (gold.value,) if gold.percent else (100 * gold.literal, gold.literal)
            if any(abs(value - reading) <= half_unit + 5.1e-4 for reading in readings):
                return True
        elif abs(value - gold.literal) <= min(half_unit, COARSEST * abs(gold.literal)) + 5.1e-6:
            return True
    return False
