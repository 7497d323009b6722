"""FinQA: the report's rendering, the gold string and how answers are judged."""

import json

import pytest

from jqlight.benchmarks import FinQA
from jqlight.benchmarks.finqa import canonical_answer, plain_value
from jqlight.errors import DataError
from jqlight.metrics.verifiers import numeric_match


@pytest.fixture
def finqa(fixtures, token_format):
    return FinQA(path=str(fixtures / "finqa")).bind(token_format)


def examples(benchmark, split="train"):
    return {example.id.rsplit("-", 1)[-1]: example for example in benchmark.examples(split)}


def test_every_value_keeps_its_header(finqa):
    assert examples(finqa)["1"].prompt == (
        "the company 2019s revenue grew . amounts are in thousands .\n\n"
        "revenue | 2018: $ 1200 | 2019: $ 1500\n"
        "write-offs | 2018: -40 ( 40 ) | 2019: -50 ( 50 )\n"
        "margin | 2018: 12% ( 12 % )\n\n"
        "Question: what was the growth of revenue in 2019?\n"
        "<think>\n"
    )


def test_gold_strings_of_the_fixture(finqa):
    golds = {number: (e.answer, e.references[-1]) for number, e in examples(finqa).items()}
    assert golds == {
        "1": ("25%", "0.25"),
        "2": ("2700", "2700"),
        "3": ("yes", "yes"),
        "4": ("-10.0", "-10"),  # the annotator's notation, the program's sign
        "5": ("0.03333", "0.03333"),  # no annotation: the value
        "6": ("30", "30"),  # the annotator's 28% is another number
    }


@pytest.mark.parametrize(
    ("annotated", "executed", "gold"),
    [
        ("34.7%", 0.34719, "34.7%"),
        ("12%", 12.0, "12%"),  # already in points
        ("19.4%", -0.19355, "-19.4%"),
        ("34.83%", 0.34824, "34.82%"),
        (".33%", 0.00327, "0.33%"),
        ("1%", 0.00764, "1%"),
        ("0%", 0.0, "0%"),
        ("0", 0.0, "0"),
        ("0%", 0.003, "0.003"),
        ("1.14", 1.13451, "1.13"),
        ("22,441", 22441.0, "22441"),
        ("$ 103.7 million", 103.7, "103.7"),
        ("26.7", 0.26667, "0.26667"),
        ("28%", 36003776400000.0, "36003776400000"),
        ("42.0", -0.38213, "-0.38213"),
        ("", 0.22464, "0.22464"),
        ("7", 7, "7"),
        ("Yes", "yes", "yes"),
        ("1", "no", "no"),
        ("34.7%", "0.34719", "34.7%"),  # a column cast to text
        ("22,441", "22441.0", "22441"),
        ("Yes", " YES ", "yes"),
    ],
)
def test_canonical_answer(annotated, executed, gold):
    assert canonical_answer(annotated, executed) == gold
    assert numeric_match(gold, [plain_value(executed)]) == 1.0


@pytest.mark.parametrize(
    ("executed", "text"),
    [
        (0.34719, "0.34719"),
        (-0.5, "-0.5"),
        (2700.0, "2700"),
        (100, "100"),
        (0.0, "0"),
        (-0.0, "0"),
        (1e-7, "0"),
        ("Yes", "yes"),
    ],
)
def test_plain_value(executed, text):
    assert plain_value(executed) == text


@pytest.mark.parametrize(
    ("prediction", "scores"),
    [
        ("25%", {"": 1, "exact_": 1, "word_": 1, "value_": 1, "strict_": 1}),
        ("0.25", {"": 0, "exact_": 0, "word_": 0, "value_": 1, "strict_": 1}),
        ("It grew by 25.0 %.", {"": 0, "exact_": 0, "word_": 0, "value_": 1, "strict_": 0}),
        ("125%", {"": 1, "exact_": 0, "word_": 0, "value_": 0, "strict_": 0}),  # the paper's rule is lenient here
        ("", {"": 0, "exact_": 0, "word_": 0, "value_": 0, "strict_": 0}),
    ],
)
def test_verifiers_judge_by_string_and_by_value(finqa, prediction, scores):
    references = examples(finqa)["1"].references
    assert {prefix: verifier(prediction, references) for prefix, verifier in finqa.verifiers.items()} == scores


def test_answers_of_one_value_vote_together(finqa):
    assert finqa.normalise("25.0 %") == finqa.normalise("0.25") != finqa.normalise("25")


def test_columns_of_numbers_and_texts_are_read_as_text(tmp_path, fixtures, token_format, finqa):
    records = json.loads((fixtures / "finqa" / "train.json").read_text("utf-8"))
    for record in records:
        record["qa"]["exe_ans"] = str(record["qa"]["exe_ans"])
    records[0]["table"][1:] = [["revenue", 1200, 1500.5], ["margin", None, "12%"]]
    (tmp_path / "train.json").write_text(json.dumps(records))
    cast = examples(FinQA(path=str(tmp_path)).bind(token_format))
    assert {n: e.references for n, e in cast.items()} == {n: e.references for n, e in examples(finqa).items()}
    assert "revenue | 2018: 1200 | 2019: 1500.5\nmargin | 2019: 12%\n" in cast["1"].prompt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qa": {"question": "?", "answer": "1"}}, ", field 'qa': field 'exe_ans' is missing"),
        ({"qa": {"question": "?", "answer": "1", "exe_ans": None}}, ", field 'qa': field 'exe_ans' must be a number"),
        ({"qa": {"question": "?", "answer": "1", "exe_ans": float("nan")}}, ".*field 'exe_ans' must be a number"),
        ({"qa": {"question": "?", "answer": "1", "exe_ans": float("inf")}}, ".*field 'exe_ans' must be a number"),
        *[
            (
                {"qa": {"question": "?", "answer": "1", "exe_ans": given}},
                ".*field 'exe_ans' must be a number, 'yes' or 'no'",
            )
            for given in ("n/a", "NaN", "-inf", "", "maybe", "1_000", "34.7%", True, [1], 10**400)
        ],
        ({"qa": {"question": "?", "answer": ["1"], "exe_ans": 1.0}}, ", field 'qa': field 'answer' must be a string"),
        ({"table": ["a", "b"]}, ": field 'table' must be a list of rows of strings"),
        ({"table": [["a", True]]}, ": field 'table' must be a list of rows of strings"),
        ({"table": [["a", ["b"]]]}, ": field 'table' must be a list of rows of strings"),
        ({"pre_text": "x"}, ": field 'pre_text' must be a list"),
    ],
)
def test_a_malformed_record_names_file_id_and_field(tmp_path, fixtures, token_format, change, message):
    records = json.loads((fixtures / "finqa" / "train.json").read_text("utf-8"))
    records[0] |= change
    (tmp_path / "train.json").write_text(json.dumps(records))
    with pytest.raises(DataError, match=rf"train\.json: record ABC/2019/page_7\.pdf-1{message}"):
        FinQA(path=str(tmp_path)).bind(token_format).examples("train")


def test_a_record_that_asks_nothing_or_of_nothing_is_dropped_and_counted(tmp_path, fixtures, token_format):
    records = json.loads((fixtures / "finqa" / "train.json").read_text("utf-8"))
    records[0]["qa"]["question"] = " \u200b"
    records[1] |= {"pre_text": ["."], "post_text": [], "table": [["", ""]]}
    (tmp_path / "train.json").write_text(json.dumps(records))
    benchmark = FinQA(path=str(tmp_path)).bind(token_format)
    assert len(benchmark.examples("train")) == len(records) - 2
    assert benchmark.dropped["train"] == {"empty question": 1, "page without text and table": 1}
