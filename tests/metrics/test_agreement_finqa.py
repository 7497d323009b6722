"""``value_`` and ``strict_`` against FinQA's rules, read here a second time with decimals, on every gold.

The official rule for a value: commas out, ``x%`` is x/100, equal when both are rounded to five decimals. The tolerant
one: equal to the digits that are shown, a percentage in points or as a fraction, at most 5% off without percent sign.
"""

import json
import os
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest

from jqlight.benchmarks.finqa import canonical_answer, plain_value
from jqlight.metrics.official import finqa_strict
from jqlight.metrics.verifiers import numeric_match

FIXTURES = Path(__file__).parent.parent / "fixtures"
UNIT = Decimal("0.00001")
WRAPPERS = ["{}", "{}.", "**{}**", "$ {}", "\\boxed{{{}}}", "\\text{{{}}}", "${}$", "\u00a0{}\u2009"]


def executed_values():
    folder = Path(os.environ["JQLIGHT_TEST_DATA"], "data") if "JQLIGHT_TEST_DATA" in os.environ else FIXTURES
    records = [r for path in sorted((folder / "finqa").glob("*.json")) for r in json.loads(path.read_text("utf-8"))]
    return [r["qa"]["exe_ans"] for r in records], [r["qa"]["answer"] for r in records]


def official_value(text):
    """The number that the official scorer reads in a string; None for none."""
    text = text.replace(",", "")
    try:
        return Decimal(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ArithmeticError:
        return None


def tolerant(text, gold):
    """Whether a plain writing (digits, commas, a percent sign) states ``gold`` to the digits that it shows."""
    percent, digits = text.endswith("%"), Decimal(text.replace(",", "").removesuffix("%"))
    half = Decimal(5).scaleb(digits.as_tuple().exponent - 1)
    if digits == 0:
        return abs(gold) < UNIT / 2
    if percent:
        return any(abs(digits - reading) <= half + Decimal("0.00051") for reading in (100 * gold, gold))
    return abs(digits - gold) <= min(half, abs(gold) / 20) + Decimal("0.0000051")


def writings(gold):
    """The value rounded to every number of digits, in points and as it is, with commas, and wrong ones close by."""
    for places in range(6):
        unit = Decimal(1).scaleb(-places)
        for factor, sign in ((1, ""), (100, "%")):
            rounded = (gold * factor).quantize(unit, ROUND_HALF_UP)
            for near in (rounded, rounded + unit, rounded - unit, -rounded, rounded * 10):
                if abs(near) < Decimal(10).scaleb(14 - places):  # 15 digits, what a double holds
                    yield from (f"{near:f}{sign}", f"{near:,f}{sign}")


def test_every_writing_of_every_executed_value():
    compared = right = 0
    for executed in executed_values()[0]:
        if isinstance(executed, str):
            continue
        gold, reference = Decimal(repr(executed)), repr(executed)
        for number, text in enumerate(writings(gold)):
            official = official_value(text).quantize(UNIT, ROUND_HALF_UP) == gold.quantize(UNIT, ROUND_HALF_UP)
            wrapped = WRAPPERS[number % len(WRAPPERS)].format(text.replace("%", "\\%") if number % 2 else text)
            assert numeric_match(wrapped, [reference]) == tolerant(text, gold), (wrapped, reference)
            assert finqa_strict(wrapped, [reference]) == official, (wrapped, reference)
            assert not official or tolerant(text, gold) or gold != official_value(text)
            compared, right = compared + 1, right + official
    assert compared >= 100 * (250 if "JQLIGHT_TEST_DATA" in os.environ else 4)
    assert compared > 4 * right > 0


def test_the_annotators_plain_answers():
    compared = 0
    for executed, answer in zip(*executed_values(), strict=True):
        if isinstance(executed, str):
            assert numeric_match(answer, [executed]) == (answer.strip().lower() == executed)
        elif official_value(answer) is not None:
            compared += 1
            assert numeric_match(answer, [repr(executed)]) == tolerant(answer, Decimal(repr(executed))), answer
    assert compared >= (200 if "JQLIGHT_TEST_DATA" in os.environ else 3)


def test_golds_in_sentences_and_other_records_golds():
    """Every y* as a model may give it, judged by its own value and by those of other records."""
    executed, answers = executed_values()
    golds = [canonical_answer(*pair) for pair in zip(answers, executed, strict=True)]
    references = [plain_value(value) for value in executed]
    right = wrong = 0
    for i, gold in enumerate(golds):
        forms = (
            gold,
            f"{gold}.",
            f"The answer is {gold}.",
            f"the {gold}" if official_value(gold) is not None else gold,
        )
        for j in (i, *((i + 7 * n + 1) % len(golds) for n in range(12))):
            if official_value(gold) is None or official_value(references[j]) is None:
                expected = gold == references[j]
            else:
                expected = tolerant(gold, Decimal(references[j]))
            for form in forms:
                assert numeric_match(form, [references[j]]) == expected, (form, references[j])
            for other in ("no idea", "not known", ""):
                assert not numeric_match(other, [references[j]])
            right, wrong = right + expected, wrong + (not expected)
    assert right >= len(golds) and wrong > right


@pytest.mark.parametrize("gold", ["-0.5", "0.34719", "0.0", "22441.0", "1e-05", "3.0", "-1034.2", "36003776400000.0"])
def test_small_fixtures(gold):
    for text in writings(Decimal(gold)):
        assert numeric_match(text, [gold]) == tolerant(text, Decimal(gold)), text
