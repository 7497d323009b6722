"""The benchmarks' official answer rules, reimplemented from their descriptions.

HotpotQA (Yang et al., 2018) and MuSiQue (Trivedi et al., 2022) share a normaliser and differ in F1. FinQA (Chen et al.,
2021) scores programs officially; for answers in text :func:`finqa_strict` keeps its rule on values and
:func:`jqlight.metrics.verifiers.numeric_match` is the tolerant one.
"""

import re
import string
from collections.abc import Sequence

from jqlight.metrics.numbers import numbers_in, plain, whole_number
from jqlight.metrics.verifiers import MAX_CHARACTERS, overlap_f1
from jqlight.metrics.voting import fold

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKED_LETTER = re.compile(r"(?<!\w)\w(?:[+#]{1,3}|-)(?!\w)")
_CLOSED = ("yes", "no", "noanswer")


def normalise_answer(text: str) -> str:
    """The text in lower case without ASCII punctuation and articles, runs of white space as one space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def official_em(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the normalised prediction equals a normalised reference: EM of HotpotQA (one gold) and MuSiQue."""
    if len(prediction) > MAX_CHARACTERS:
        return 0.0
    return float(normalise_answer(prediction) in {normalise_answer(reference) for reference in references})


def hotpotqa_f1(prediction: str, references: Sequence[str]) -> float:
    """HotpotQA's token F1, best over the references.

    Zero if either side is "yes", "no" or "noanswer" and they differ; zero also if both are empty.
    """
    if len(prediction) > MAX_CHARACTERS:
        return 0.0
    return max((_hotpotqa_f1(normalise_answer(prediction), normalise_answer(r)) for r in references), default=0.0)


def musique_f1(prediction: str, references: Sequence[str]) -> float:
    """MuSiQue's token F1, best over answer and aliases; one if both sides are empty, zero if only one is."""
    if len(prediction) > MAX_CHARACTERS:
        return 0.0
    tokens = normalise_answer(prediction).split()
    return max((overlap_f1(tokens, normalise_answer(r).split()) for r in references), default=0.0)


def finqa_strict(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the prediction is a number that equals a reference at five decimals, or the same "yes" or "no".

    The official rule for executed programs: commas are dropped, ``x%`` is x/100, a scale word is applied. The
    prediction must be the number and nothing else.
    """
    if len(prediction) > MAX_CHARACTERS:
        return 0.0
    return float(any(_strictly(prediction, reference) for reference in references))


def fold_answer(answer: str) -> str:
    """What votes as one answer in HotpotQA and MuSiQue: the official normal form, or more where that loses the answer.

    "A" and "The The" keep their articles, "!!!" its punctuation, and so do single letters with a mark ("C++", "B-").
    """
    answer = fold(answer)
    if _MARKED_LETTER.search(answer):
        return answer
    words = " ".join(answer.translate(_NO_PUNCTUATION).split())
    return normalise_answer(answer) or words or answer


def fold_number(answer: str) -> str:
    """What votes as one answer in FinQA: the last number's value at five decimals, or the folded text without number.

    "34.7%", "34.70 %" and "the answer is 0.347" vote alike: a percent sign is applied. A scale word is
    dropped, since the tables state their unit.
    """
    found = numbers_in(answer) if len(answer) <= MAX_CHARACTERS else []
    if not found:
        return fold(plain(answer)).strip(".,;:!?\"'") or fold(answer)
    value = round(found[-1].literal / found[-1].scale, 5)
    return f"{value + 0.0:.5f}"


def _hotpotqa_f1(prediction: str, gold: str) -> float:
    if prediction != gold and (prediction in _CLOSED or gold in _CLOSED):
        return 0.0
    if not prediction and not gold:
        return 0.0
    return overlap_f1(prediction.split(), gold.split())


def _strictly(prediction: str, reference: str) -> bool:
    gold, written = whole_number(reference), whole_number(prediction)
    if gold is None or written is None:
        return gold is written and fold(prediction) == fold(reference)
    return round(written.literal, 5) == round(gold.literal, 5)
