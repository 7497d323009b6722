"""The official answer rules on strings chosen by hand; agreement on records is in test_agreement.py."""

import pytest

from jqlight.metrics.official import (
    finqa_strict,
    fold_answer,
    fold_number,
    hotpotqa_f1,
    musique_f1,
    normalise_answer,
    official_em,
)
from jqlight.metrics.verifiers import MAX_CHARACTERS, numeric_match


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Beatles", "beatles"),
        ("an A-Team", "ateam"),  # punctuation goes without a space, so "a" is no word any more
        ("U.S.A.", "usa"),
        ("theatre", "theatre"),
        ("a", ""),
        ("Zoë’s “hat”", "zoë’s “hat”"),  # unicode punctuation stays
        ("1939–1945", "1939–1945"),
        ("\u00a0x\u00a0", "x"),
        ("", ""),
    ],
)
def test_normal_form(text, expected):
    assert normalise_answer(text) == expected


@pytest.mark.parametrize(
    ("prediction", "references", "em", "hotpotqa", "musique"),
    [
        ("the Eiffel Tower", ["Eiffel Tower"], 1, 1, 1),
        ("Eiffel", ["Eiffel Tower"], 0, 2 / 3, 2 / 3),
        ("yes", ["yes"], 1, 1, 1),
        ("Yes!", ["yes"], 1, 1, 1),
        ("yes it is", ["yes"], 0, 0, 1 / 2),  # only HotpotQA refuses partial credit for yes and no
        ("no", ["no one"], 0, 0, 2 / 3),
        ("noanswer", ["noanswer here"], 0, 0, 2 / 3),
        ("", [""], 1, 0, 1),  # two empty strings
        ("the", ["a"], 1, 0, 1),  # empty after normalisation
        ("", ["Paris"], 0, 0, 0),
        ("Paris", ["the"], 0, 0, 0),
        ("north", ["no"], 0, 0, 0),
        ("“Paris”", ["Paris"], 0, 0, 0),
        ("b b", ["b"], 0, 2 / 3, 2 / 3),
        ("NYC", ["New York City", "NYC"], 1, 1, 1),
        ("new york", ["Boston", "New York City"], 0, 4 / 5, 4 / 5),
    ],
)
def test_em_and_f1(prediction, references, em, hotpotqa, musique):
    assert official_em(prediction, references) == em
    assert hotpotqa_f1(prediction, references) == pytest.approx(hotpotqa)
    assert musique_f1(prediction, references) == pytest.approx(musique)


def test_em_and_f1_take_their_maximum_over_the_golds_separately():
    references = ["a b c d e f", "x"]
    assert official_em("x", references) == 1.0
    assert musique_f1("b c", references) == pytest.approx(4 / 7)  # without the article: two of five


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("0.34719", "0.34719", 1),
        ("34.719%", "0.34719", 1),
        ("34.7%", "0.34719", 0),
        ("34.719", "0.34719", 0),
        ("0.347190001", "0.34719", 1),  # rounded to five decimals
        ("22,441", "22441.0", 1),
        ("-4 ( 4 )", "-4", 1),
        ("-0.5%", "0.005", 0),
        ("3 million", "3000000", 1),
        ("3 million", "3", 0),
        ("the answer is 3", "3", 0),
        ("yes", "yes", 1),
        ("yes.", "yes", 0),
        ("no", "yes", 0),
        ("", "0", 0),
        ("yes", "1", 0),
        ("1", "yes", 0),
    ],
)
def test_finqa_strict(prediction, reference, expected):
    assert finqa_strict(prediction, [reference]) == expected


@pytest.mark.parametrize(
    ("same", "other"),
    [
        (["34.7%", "34.70 %", "0.347", "the answer is 0.347."], "34.8%"),
        (["1,034", "$ 1034", "1034 million", "1034.0"], "-1034"),
        (["Yes", "yes.", " YES ", "\\boxed{Yes}", "$\\text{yes}$", "<answer>yes</answer>"], "no"),
        (["0", "-0", "0.000001"], "0.1"),
    ],
)
def test_equal_values_vote_alike(same, other):
    assert len({fold_number(answer) for answer in same}) == 1
    assert fold_number(other) != fold_number(same[0])


@pytest.mark.parametrize("value", ["34.7%", "1200", "-5.2%"])
def test_every_common_way_of_writing_a_value_votes_alike(value):
    assert {fold_number(text) for text in WRITTEN[value]} == {fold_number(value)}
    assert [text for text in WRITTEN[value] if not finqa_strict(text, [value])] == []
    assert [text for text in WRITTEN[value] if not numeric_match(text, [value])] == []


WRITTEN = {
    "34.7%": [
        "34.7 %", "**34.7%**", "34.7\\%", "$34.7\\%$", "\\boxed{34.7\\%}", "\\boxed{34.7}\\%", "\\text{34.7}%",
        "\\(34.7\\,\\%\\)", "34.7\\ \\%", "34.7~\\%", "$34.7$%", "$$\\mathbf{34.7}\\%$$", "34.7 \\text{ percent}",
        "34.7 percent", "34.7 Per Cent", "34.7pct", "34.7 pct.", "34.7 percentage points", "34.7 %-points", "+34.7%",
        "34.7％", "34.7٪", "34.7﹪", "３４．７％", "34.7\u00a0%", "34.7\u202f%", "34.7\u2009%", "34.7\u200b%", "٣٤٫٧٪",
        "34,7 %", "34,7\\%", "34,7 percent", "%34.7", "34.7\\textpercent", "34.7&#37;", "34.7&percnt;", "0.347 (34.7%)",
        "34.7% (0.347)", "\\SI{34.7}{\\percent}",
    ],
    "1200": [
        "1,200", "$1,200", "$ 1,200.", "\\$1{,}200", "$\\$1{,}200$", "1\\,200", "1{,}200", "\\boxed{1,\\!200}",
        "USD 1,200", "1,200 USD", "US$1,200", "HK$ 1,200", "C$1200", "€1200", "1200 €", "£1,200", "¥1200",
        "₹1,200", "Rs. 1,200", "1200 dollars", "＄１，２００", "1\u00a0200", "1\u202f200", "1\u2009200", "1'200",
        "1’200", "1.2e3", "1.2 × 10^3", "1.2 × 10³", "1.2 \\times 10^{3}",
        "1.200,00", "1 200", "$ 1 200", "1&nbsp;200",
    ],
    "-5.2%": [
        "−5.2%", "–5.2 %", "﹣5.2%", "－5.2％", "‒5.2\\%", "(5.2)%", "(5.2%)", "( 5.2 ) %", "minus 5.2%",
        "negative 5.2 percent",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("same", "others"),
    [
        (["A", "a.", "(A)", "A)"], ["B", "The", "A+", "a-"]),
        (["The The", "the the!"], ["The", "Blur"]),
        (["!!!", " !!! "], ["...", "?"]),
        (["C++", " c++"], ["C", "C#"]),
        (["B-"], ["B", "B+"]),
        (["The Lake Sorn!", "lake  sorn"], ["Sorn"]),
        (["Beyoncé", "Beyonce\u0301", "the beyoncé\u200e"], ["Beyonce"]),
    ],
)
def test_answers_that_the_official_rule_empties_or_merges_vote_apart(same, others):
    forms = {fold_answer(answer) for answer in same}
    assert len(forms) == 1 and "" not in forms
    assert len({fold_answer(answer) for answer in others} - forms) == len(others)


@pytest.mark.parametrize("text", ["A", ".", "!!!", "no idea"])
def test_every_answer_that_is_not_blank_votes(text):
    assert fold_number(text) and not fold_number("  ")


@pytest.mark.parametrize("verifier", [official_em, hotpotqa_f1, musique_f1, finqa_strict])
def test_a_prediction_over_the_limit_scores_nothing(verifier):
    assert verifier(" " * MAX_CHARACTERS + "7", ["7"]) == 0.0
    assert verifier("7", ["7"]) == 1.0
