"""Our EM and F1 against the official rules, written here a second time from their description, on perturbed golds.

Golds come from the real records where JQLIGHT_TEST_DATA is set, else from the fixtures.
"""

import json
import os
import random
import re
from pathlib import Path

import pytest

from jqlight.metrics.official import hotpotqa_f1, musique_f1, official_em

FIXTURES = Path(__file__).parent.parent / "fixtures"
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def reference_normal_form(text):
    """Lower case; punctuation out; the words a, an and the become spaces; white space collapsed."""
    letters = "".join(c for c in text.lower() if c not in PUNCTUATION)
    pieces = [" " if piece in ("a", "an", "the") else piece for piece in re.findall(r"\w+|\W", letters)]
    return " ".join("".join(pieces).split())


def reference_f1(prediction, gold, *, closed):
    """Token F1; ``closed``: HotpotQA's, without partial credit for yes, no and noanswer, and 0 for two empties."""
    p, g = reference_normal_form(prediction), reference_normal_form(gold)
    if closed and p != g and ("yes" in (p, g) or "no" in (p, g) or "noanswer" in (p, g)):
        return 0.0
    p, g = p.split(" ") if p else [], g.split(" ") if g else []
    if not p or not g:
        return 0.0 if closed else float(p == g)
    left, same = list(g), 0
    for token in p:
        if token in left:
            left.remove(token)
            same += 1
    if same == 0:
        return 0.0
    precision, recall = same / len(p), same / len(g)
    return 2 * precision * recall / (precision + recall)


def perturbations(answer, generator):
    """Answers that a model might give instead: decorated, cut, repeated, mixed up, wrong, or nothing."""
    words = answer.split() or [""]
    shuffled = generator.sample(words, len(words))
    return [
        answer,
        f"The {answer}.",
        f"a {answer.upper()}!",
        " ".join(words[:-1]),
        " ".join(words + words[:1]),
        " ".join(shuffled),
        f"It is “{answer}”, an answer",
        answer.replace(" ", "-"),
        answer.replace("-", "–").replace("'", "’"),
        f"{answer} {generator.choice(words)} the {generator.choice(words)}",
        "yes",
        "no",
        "noanswer",
        "the",
        "",
    ]


def hotpotqa_golds():
    folder = Path(os.environ.get("JQLIGHT_TEST_DATA", ""), "data") if "JQLIGHT_TEST_DATA" in os.environ else FIXTURES
    return [
        r["answer"]
        for path in sorted((folder / "hotpotqa").glob("*.json"))
        for r in json.loads(path.read_text("utf-8"))
    ]


def musique_golds():
    folder = Path(os.environ.get("JQLIGHT_TEST_DATA", ""), "data") if "JQLIGHT_TEST_DATA" in os.environ else FIXTURES
    lines = [
        line for path in sorted((folder / "musique").glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()
    ]
    return [[r["answer"], *r["answer_aliases"]] for r in map(json.loads, lines)]


def test_hotpotqa_agrees_with_the_official_rules():
    generator = random.Random(0)
    compared = partial = 0
    for gold in hotpotqa_golds():
        for prediction in perturbations(gold, generator):
            em = float(reference_normal_form(prediction) == reference_normal_form(gold))
            f1 = reference_f1(prediction, gold, closed=True)
            assert official_em(prediction, [gold]) == em, (prediction, gold)
            assert hotpotqa_f1(prediction, [gold]) == pytest.approx(f1, abs=1e-12), (prediction, gold)
            compared += 1
            partial += 0 < f1 < 1
    assert compared >= 15 * (200 if "JQLIGHT_TEST_DATA" in os.environ else 3)
    assert partial > compared / 20


def test_musique_agrees_with_the_official_rules():
    generator = random.Random(0)
    compared = aliases = 0
    for golds in musique_golds():
        for source in golds:
            for prediction in perturbations(source, generator):
                em = max(float(reference_normal_form(prediction) == reference_normal_form(gold)) for gold in golds)
                f1 = max(reference_f1(prediction, gold, closed=False) for gold in golds)
                assert official_em(prediction, golds) == em, (prediction, golds)
                assert musique_f1(prediction, golds) == pytest.approx(f1, abs=1e-12), (prediction, golds)
                compared += 1
                aliases += em > official_em(prediction, golds[:1])
    assert compared >= 15 * (200 if "JQLIGHT_TEST_DATA" in os.environ else 3)
    assert aliases > 0
