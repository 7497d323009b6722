"""Each verifier against a table of awkward strings, right ones and wrong ones."""

import pytest

from jqlight.metrics.verifiers import (
    MAX_CHARACTERS,
    exact_match,
    numeric_match,
    on_answer,
    on_value,
    substring_match,
    token_f1,
    word_match,
)


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("Paris", ["Paris"], 1),
        ("  Paris\n", ["Paris"], 1),
        ("Paris", ["London", "Paris "], 1),
        ("paris", ["Paris"], 0),
        ("Paris.", ["Paris"], 0),
        ("", ["Paris"], 0),
        ("The Paris", ["Paris"], 0),
        ("Paris", [], 0),
    ],
)
def test_exact_match_is_equality_of_stripped_strings(prediction, references, expected):
    assert exact_match(prediction, references) == expected


@pytest.mark.parametrize(
    ("prediction", "reference", "substring", "word"),
    [
        ("It is Paris.", "Paris", 1, 1),
        ("paris", "Paris", 0, 1),  # the paper's rule is literal
        ("in the north", "no", 1, 0),
        ("no", "no", 1, 1),
        ("No, it is false", "no", 0, 1),
        ("15", "5", 1, 0),
        ("3.5", "5", 1, 0),
        ("5.25", "5", 1, 0),
        ("1,500", "500", 1, 0),
        ("-5", "5", 1, 0),
        ("$5, or so", "5", 1, 1),
        ("(5)", "5", 1, 1),
        ("Dr. Noe and Dr. No", "Dr. No", 1, 1),  # the second occurrence counts
        ("Dr. No", "Dr. No", 1, 1),
        ("the  United\nStates", "United States", 0, 1),
        ("Zoë’s", "Zoë", 1, 1),
        ("Zoëlle", "Zoë", 1, 0),
        ("", "Paris", 0, 0),
        ("Paris", "", 0, 0),
        ("Paris", "   ", 0, 0),
    ],
)
def test_substring_is_the_papers_rule_and_word_match_its_strict_twin(prediction, reference, substring, word):
    assert substring_match(prediction, [reference]) == substring
    assert word_match(prediction, [reference]) == word


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("12.5 %", "0.125", 1),
        ("12.5%", "12.5", 1),  # five of 270 gold values are in points already
        ("12.5", "0.125", 0),
        ("0.125", "0.125", 1),
        ("12.5 percent", "0.125", 1),
        ("34.7%", "0.34719", 1),
        ("35%", "0.34719", 1),
        ("34.6%", "0.34719", 0),
        ("34%", "0.34719", 0),  # cut, not rounded
        ("-0.5%", "0.005", 0),
        ("-0.5%", "-0.005", 1),
        ("−0.5%", "-0.005", 1),
        ("0%", "0.004", 0),
        ("0%", "0", 1),
        ("0", "0.00000", 1),
        ("1", "1.4", 0),  # rounding to one digit is no answer
        ("1.4", "1.43", 1),
        ("1%", "0.00764", 1),
        ("3,300.5 million", "3300.5", 1),
        ("3,300.5 million", "3300500000", 1),
        ("3.3 million", "3310000", 1),
        ("3,300.5 billion", "3300500000", 0),
        ("$ 3.3 billion", "3300", 0),
        ("(4.2)", "-4.2", 1),
        ("(4.2)", "4.2", 0),
        ("-4 ( 4 )", "-4", 1),
        ("12% ( 12 % )", "0.12", 1),
        ("$ 35", "35", 1),
        ("-$35", "-35", 1),
        ("1.035e3", "1035", 1),
        ("The answer is 22441.", "22441.0", 1),
        *[
            (text, "-34.719", 1)
            for text in ("−34.7", "–34.7", "minus 34.7", "(34.7)", "\\(-34.7\\)", "-$34.7", "-34.7 USD")
        ],
        ("\\frac{347}{1000}", "1000", 0),
        ("347/1000", "1000", 0),
        ("1/2", "2", 0),
        ("1 200", "200", 0),
        ("1.200,00", "0", 0),
        ("0,347", "347", 0),
        ("34,7 %", "7", 0),
        ("150 bps", "0.015", 1),
        ("150 bps", "150", 1),
        ("34.7% (0.34719)", "0.34719", 1),
        ("0.347 = \\frac{347}{1000}", "0.347", 1),
        ("the answer is \\boxed{34.7\\%}.", "0.34719", 1),
        ("\\$1{,}200", "1200", 1),
        ("$1.2k", "1200", 1),
        ("between 2019 and 2020: 7", "7", 1),
        ("7 in 2019", "7", 0),  # the last number counts
        ("10-12", "-12", 0),
        ("yes", "yes", 1),
        ("Yes.", "yes", 1),
        ("yes, it did", "yes", 1),
        ("no", "yes", 0),
        ("1", "yes", 0),
        ("yes", "1", 0),
        ("", "0", 0),
        ("", "yes", 0),
        ("n/a", "5", 0),
        ("1" * 400, "1", 0),
    ],
)
def test_numeric_match(prediction, reference, expected):
    assert numeric_match(prediction, [reference]) == expected


@pytest.mark.parametrize(
    ("prediction", "answers"),
    [
        *[
            (text, "no")
            for text in ("no", "No.", '"No"', "**no**", "(no)", "No, it is not", "no — it fell", "no. it fell")
        ],
        *[(text, "no") for text in ("the answer is no.", "Final answer: No", "They differ, so no.", "It fell. No!")],
        *[
            (text, "no")
            for text in (
                "No it is not",
                "No\nThey differ.",
                "**No**\n\nThey differ.",
                "- no",
                "Answer:\nno",
                "answer=no",
            )
        ],
        *[
            (text, "yes")
            for text in (
                "\\boxed{Yes}",
                "$\\text{yes}$",
                "<answer>yes</answer>",
                "`yes`",
                "_Yes_",
                "yes。",
                "Yes (both)",
            )
        ],
        *[(text, "yes") for text in ("Yes they did", "yes because both did", "The answer is yes, since both did")],
        *[(text, "") for text in ("no idea\nat all", "the answer is no longer known", "Not it", "no information")],
        *[(text, "yes") for text in ("YES", "yes; both", "Yes, no doubt", "so the answer is **yes**")],
        *[(text, "") for text in ("no idea", "no one", "no-one", "No. 5", "yes or no", "yes/no", "yes and no", "")],
        *[
            (text, "")
            for text in ("in the north, no doubt", "there is no answer", "no evidence of it", "nothing", "yesterday")
        ],
    ],
)
def test_yes_and_no_are_not_read_out_of_longer_phrases(prediction, answers):
    for verifier in (word_match, numeric_match):
        assert [word for word in ("yes", "no") if verifier(prediction, [word])] == [answers][: bool(answers)]


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("a b c", ["a b c"], 1.0),
        ("A  b", ["a B"], 1.0),
        ("a b c d", ["a b"], 2 / 3),
        ("a a b", ["a b"], 4 / 5),  # multisets: the second a has no partner
        ("x", ["a", "x y"], 2 / 3),
        ("", ["a"], 0.0),
        ("a", [""], 0.0),
        ("", [""], 1.0),
        ("a", [], 0.0),
    ],
)
def test_token_f1_by_hand(prediction, references, expected):
    assert token_f1(prediction, references) == pytest.approx(expected)


def test_the_best_reference_counts():
    for verifier in (exact_match, substring_match, word_match, numeric_match, token_f1):
        assert verifier("7", ["8", "7"]) == 1.0
        assert verifier("7", ["8", "9"]) == 0.0


def test_on_answer_takes_the_first_reference_and_on_value_the_last():
    assert on_answer(exact_match)("alias", ["gold", "alias"]) == 0.0
    assert on_answer(exact_match)("gold", ["gold", "alias"]) == 1.0
    assert on_value(numeric_match)("34.7%", ["34.7%", "0.1"]) == 0.0
    assert on_value(numeric_match)("34.7%", ["0.1", "0.347"]) == 1.0


@pytest.mark.parametrize("verifier", [substring_match, word_match, numeric_match, token_f1])
def test_a_prediction_over_the_limit_scores_nothing(verifier):
    assert verifier("7", ["7"]) == 1.0
    assert verifier(" " * MAX_CHARACTERS + "7", ["7"]) == 0.0


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", ["(", "-", " ", "( ", "1,111", "1", "$ ", "- ", "%", "no", "1.", "(-$"])
def test_no_input_takes_long(unit):
    text = (unit * MAX_CHARACTERS)[:MAX_CHARACTERS]
    for verifier in (exact_match, substring_match, word_match, numeric_match, token_f1):
        assert 0.0 <= verifier(text, ["no", "12.5%", text[: MAX_CHARACTERS // 2]]) <= 1.0
