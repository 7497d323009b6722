"""The vote's expectation against the enumeration of every subset."""

import itertools
from collections import Counter

import numpy as np
import pytest

from jqlight.metrics import voting
from jqlight.metrics.voting import fold, majority_vote


def enumerated(answers, scores, k):
    """Mean score and tie rate over all subsets of size k, each voted on by itself."""
    score = ties = 0.0
    subsets = list(itertools.combinations(range(len(answers)), k))
    for subset in subsets:
        counts = Counter(answers[i] for i in subset if answers[i])
        leaders = [answer for answer in counts if counts[answer] == max(counts.values())]
        ties += len(leaders) > 1
        if leaders:
            score += np.mean([np.mean([scores[i] for i in subset if answers[i] == leader]) for leader in leaders])
    return score / len(subsets), ties / len(subsets)


@pytest.mark.parametrize("n", range(1, 9))
def test_expectation_equals_enumeration(n):
    generator = np.random.default_rng(n)
    for _ in range(12):
        k = int(generator.integers(1, n + 1))
        answers = [["", "a", "b", "c", "d"][i] for i in generator.integers(0, 5, n)]
        scores = generator.random(n).tolist()
        assert majority_vote(answers, scores, k) == pytest.approx(enumerated(answers, scores, k), abs=1e-12)


def test_by_hand():
    assert majority_vote(["a", "b", "a"], [1, 0, 1], 3) == (1.0, 0.0)
    assert majority_vote(["a", "b"], [1, 0], 2) == (0.5, 1.0)  # a tie counts its expected value
    assert majority_vote(["", "", "b"], [0, 0, 1], 3) == (1.0, 0.0)  # silence does not vote
    assert majority_vote(["", " "], [1, 1], 2) == (0.0, 0.0)  # nobody answered: wrong
    no_articles = {"A": "", "The": "", "B": "b"}.get
    assert majority_vote(["A", "A", "The", "B"], [1, 1, 0, 0], 4, no_articles) == (1.0, 0.0)  # not silent: "" is folded
    assert majority_vote([" ", "B"], [0, 1], 2, lambda answer: answer.strip() or "blank") == (1.0, 0.0)
    assert majority_vote([" Ab  c", "aB C"], [1, 0], 2) == (0.5, 0.0)  # one class, its members' mean score


def test_order_does_not_matter():
    answers, scores = list("aabbc"), [1.0, 1.0, 0.0, 0.0, 1.0]
    votes = {
        majority_vote(order, [scores["aabbc".index(a)] for a in order], 5) for order in itertools.permutations(answers)
    }
    assert votes == {(0.5, 1.0)}


def test_large_n_keeps_its_precision():
    # 1000 different answers, one right: a vote of 16 is a tie of all 16, won by the right one with 1/1000.
    vote = majority_vote([str(i) for i in range(1000)], [1.0] + [0.0] * 999, 16)
    assert vote.score == pytest.approx(1 / 1000, rel=1e-10)
    assert vote.tie == pytest.approx(1.0, rel=1e-10)


def test_beyond_the_limit_a_seeded_estimate_close_to_the_exact_value(monkeypatch):
    answers = [str(i % 5) if i < 10 else "" for i in range(40)]  # a draw of 4 is often all empty
    scores = [float(i % 5 == 0) for i in range(40)]
    exact = majority_vote(answers, scores, 4)
    monkeypatch.setattr(voting, "_EXACT_WORK", 0)
    drawn = majority_vote(answers, scores, 4)
    assert drawn == majority_vote(answers, scores, 4)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=0.03)


def test_too_few_samples_says_what_to_do():
    with pytest.raises(ValueError, match=r"vote of 3 needs at least 3 samples per question, got 2; draw more"):
        majority_vote(["a", "b"], [1, 0], 3)


def test_fold():
    assert fold("  Straße \n X ") == fold("STRASSE x") == "strasse x"
