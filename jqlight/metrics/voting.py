"""Majority votes over normalised answers, in expectation over ties and over which k of n samples vote."""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_EXACT_WORK = 1e8
"""Largest number of multiplications for the exact expectation of one question (a few seconds)."""
_DRAWS = 4000
"""Subsets sampled where the exact expectation is too expensive: a standard error of at most 0.008 per question."""

# Soft hyphens, marks of direction, spaces and joiners of no width, byte-order marks.
_INVISIBLE = "\u00ad\u061c\u180e" + "".join(map(chr, (*range(0x200B, 0x2010), *range(0x202A, 0x202F)))) + "\ufeff"
_INVISIBLE += "".join(map(chr, range(0x2060, 0x206A)))

Scored = NDArray[np.float64]


class Vote(NamedTuple):
    """Outcome of one question's vote, in expectation."""

    score: float
    """Score of the winning answer, the mean over tied winners; 0 if no sample has an answer."""
    tie: float
    """Probability that several answers lead."""


def fold(answer: str) -> str:
    """The answer stripped, case-folded, with runs of white space as one space: two answers that fold alike are one.

    So are canonically equivalent ones (an accented letter as one character or as two); invisible characters go.
    """
    if not answer.isascii():
        decomposed = unicodedata.normalize("NFD", answer.translate(dict.fromkeys(map(ord, _INVISIBLE))))
        answer = unicodedata.normalize("NFC", decomposed.casefold())
    return " ".join(answer.casefold().split())


def visible(text: str) -> str:
    """The text without white space and invisible characters around it, such as a byte-order mark of a joined file."""
    while (bare := text.strip().strip(_INVISIBLE)) != text:
        text = bare
    return text


def majority_vote(
    answers: Sequence[str], scores: Sequence[float], k: int, normalise: Callable[[str], str] = fold
) -> Vote:
    """The majority vote of k of the n answers, in expectation over all subsets of size k.

    Answers that normalise alike are one class, whose score is the mean of its members'; an answer that normalises to
    nothing ("A" without articles) votes by its folded text, and only blank ones do not vote. Tied classes win with
    equal probability. For n = k this is the plain vote. For n > k the expectation is exact (multivariate hypergeometric
    counts), or, where that would take more than some seconds, the mean over 4000 subsets drawn with a fixed seed.

    Raises:
        ValueError: fewer than k answers.
    """
    if len(answers) < k:
        raise ValueError(
            f"a vote of {k} needs at least {k} samples per question, got {len(answers)}; draw more, or lower k"
        )
    members: defaultdict[str, list[float]] = defaultdict(list)
    for answer, score in zip(answers, scores, strict=True):
        members[(normalise(answer) or fold(answer)) if answer.strip() else ""].append(score)
    unanswered = len(members.pop("", []))
    if not members:
        return Vote(0.0, 0.0)
    counts = np.array([len(group) for group in members.values()])
    means = np.array([sum(group) / len(group) for group in members.values()])
    if len(answers) == k:
        return _plain(counts, means)
    work = len(counts) * k**2 * min(k, int(counts.max()))
    # Beyond 1e300 the binomials leave the range of a double.
    if work > _EXACT_WORK or _log10_comb(len(answers), k) > 300:
        return _sampled(counts, means, unanswered, k)
    return _expected(counts, means, unanswered, k)


def _plain(counts: NDArray[np.int64], means: Scored) -> Vote:
    leaders = counts == counts.max()
    return Vote(float(means[leaders].mean()), float(leaders.sum() > 1))


def _expected(counts: NDArray[np.int64], means: Scored, unanswered: int, k: int) -> Vote:
    score = tie = 0.0
    for top in range(1, min(k, int(counts.max())) + 1):
        wins, shares = _winning_ways(counts, means, unanswered, k, top)
        score += float((wins * shares).sum())
        # The same ways with every score 1 count the subsets; a lone winner (first entry) is no tie.
        wins, shares = _winning_ways(counts, np.ones_like(means), unanswered, k, top)
        tie += float((wins * shares)[1:].sum())
    subsets = math.comb(int(counts.sum()) + unanswered, k)
    return Vote(score / subsets, tie / subsets)


def _winning_ways(
    counts: NDArray[np.int64], means: Scored, unanswered: int, k: int, top: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ways to draw k samples so that the most frequent class has ``top`` of them, by the number of further leaders.

    A generating function in two variables, drawn samples and further leaders; ``chosen`` is the part in which one
    leader has been singled out as the winner and weighted by its score. The winner is one of (others + 1) leaders, so
    each way counts with that share.
    """
    others = k // top
    open_ways = np.zeros((k + 1, others + 1))  # (samples drawn, further leaders)
    open_ways[0, 0] = 1.0
    chosen = np.zeros_like(open_ways)
    for count, mean in zip(counts.tolist(), means.tolist(), strict=True):
        next_open, next_chosen = np.zeros_like(open_ways), np.zeros_like(chosen)
        for drawn in range(min(count, top - 1, k) + 1):
            ways = math.comb(count, drawn)
            next_open[drawn:] += ways * open_ways[: k + 1 - drawn]
            next_chosen[drawn:] += ways * chosen[: k + 1 - drawn]
        if count >= top:
            ways = math.comb(count, top)
            next_open[top:, 1:] += ways * open_ways[: k + 1 - top, :-1]
            next_chosen[top:, 1:] += ways * chosen[: k + 1 - top, :-1]
            next_chosen[top:] += ways * mean * open_ways[: k + 1 - top]
        open_ways, chosen = next_open, next_chosen
    empty_ways = np.array([math.comb(unanswered, k - drawn) for drawn in range(k + 1)], dtype=np.float64)
    return empty_ways @ chosen, 1.0 / np.arange(1, others + 2)


def _sampled(counts: NDArray[np.int64], means: Scored, unanswered: int, k: int) -> Vote:
    draws = np.random.default_rng(0).multivariate_hypergeometric([*counts.tolist(), unanswered], k, size=_DRAWS)[:, :-1]
    leaders = (draws == draws.max(axis=1, keepdims=True)) & (draws > 0)  # (draws, classes)
    number = leaders.sum(axis=1)
    scores = (leaders * means).sum(axis=1) / np.maximum(number, 1)
    return Vote(float(scores.mean()), float((number > 1).mean()))


def _log10_comb(n: int, k: int) -> float:
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(10)
