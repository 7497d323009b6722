"""The evaluator: names, values and rows of one table of hand-made samples."""

import pytest
import torch

from jqlight.benchmarks import Example, HotpotQA, MuSiQue
from jqlight.benchmarks.evaluator import Evaluator
from jqlight.metrics import MajorityAtK, PassAtK
from jqlight.metrics.verifiers import exact_match, on_answer, substring_match, token_f1

EXAMPLES = [
    Example("q1", "1+1?", (1,), "2", (2,), ("2",)),
    Example("q2", "Capital?", (1,), "Paris", (2,), ("Paris", "City of Paris")),
]
ANSWERS = [["2", "it is 2", "2", "3"], ["paris", "City of Paris", "", "London"]]


def evaluator(k=4):
    return Evaluator({"": on_answer(substring_match), "exact_": exact_match, "f1_": token_f1}, k)


def test_values_by_hand():
    result = evaluator()
    result.update(EXAMPLES, ANSWERS)
    values = {name: value.item() for name, value in result.compute().items()}
    assert values == pytest.approx(
        {
            "pass_at_1": (3 / 4 + 1 / 4) / 2,
            "pass_at_4": 1.0,
            "maj_at_4": (1 + 1 / 3) / 2,  # q2: three answers tie, one of them holds the gold
            "exact_pass_at_1": (2 / 4 + 1 / 4) / 2,
            "exact_pass_at_4": 1.0,
            "exact_maj_at_4": (1 + 1 / 3) / 2,
            "f1_pass_at_1": (3 / 4 + 2 / 4) / 2,
            "f1_pass_at_4": 1.0,
            "f1_maj_at_4": (1 + 2 / 3) / 2,
            "f1": ((1 + 1 / 2 + 1 + 0) / 4 + (1 + 1 + 0 + 0) / 4) / 2,
            "tie_rate": 1 / 2,
            "unanswered_rate": 1 / 8,
        }
    )


def test_one_sample_has_one_pass_rate():
    assert [name for name in evaluator(1).metrics if name.startswith("pass")] == ["pass_at_1"]


def test_each_answer_is_judged_once_by_each_verifier_and_the_metrics_say_the_same_alone():
    calls = []

    def counting(name, verifier):
        return lambda answer, golds: calls.append((name, answer, golds)) or verifier(answer, golds)

    kinds = {"": on_answer(substring_match), "exact_": exact_match, "f1_": token_f1}
    result = Evaluator({name: counting(name, verifier) for name, verifier in kinds.items()}, 4)
    result.update(EXAMPLES, ANSWERS, ANSWERS)
    values = result.compute()
    wanted = [
        (n, a, e.references) for n in kinds for e, answers in zip(EXAMPLES, ANSWERS, strict=True) for a in answers
    ]
    assert calls == wanted  # 3 verifiers x 8 samples, rows and tie rate included
    references = [e.references for e in EXAMPLES]
    for prefix, verifier in kinds.items():
        for name, metric in (
            (f"{prefix}pass_at_4", PassAtK(4, verifier)),
            (f"{prefix}maj_at_4", MajorityAtK(4, verifier)),
        ):
            metric.update(ANSWERS, references)
            assert torch.equal(metric.compute(), values[name])


@pytest.mark.parametrize("kind", [HotpotQA, MuSiQue])
@pytest.mark.parametrize(("gold", "wrong"), [("A", "B"), ("The The", "Blur"), ("!!!", "Blur"), ("C++", "C")])
def test_answers_of_articles_and_punctuation_win_their_vote(kind, gold, wrong):
    result = Evaluator(kind.verifiers, 4, kind.normalise)
    result.update([Example("q", "?", (1,), gold, (2,), (gold,))], [[gold, gold, gold, wrong]])
    values = {name: value.item() for name, value in result.compute().items()}
    assert values["maj_at_4"] == values["exact_maj_at_4"] == values["em_maj_at_4"] == 1.0
    assert values["tie_rate"] == values["unanswered_rate"] == 0.0


def test_em_stays_the_official_rule_and_blank_answers_alone_are_unanswered():
    result = Evaluator(HotpotQA.verifiers, 4, HotpotQA.normalise)
    result.update([Example("q", "?", (1,), "A", (2,), ("A",))], [["The", "...", "an", "B"]])
    values = {name: value.item() for name, value in result.compute().items()}
    assert values["em_pass_at_1"] == 0.75 and values["unanswered_rate"] == 0.0
    result.update([Example("p", "?", (1,), "A", (2,), ("A",))], [["A", " ", "", "\n"]])
    assert result.compute()["unanswered_rate"].item() == 3 / 8
    assert result.compute()["tie_rate"].item() == 1 / 2


def test_rows_are_one_per_sample_with_every_verdict():
    result = evaluator()
    result.update(EXAMPLES, ANSWERS, [["r1", "r2", "r3", "r4"], ["s1", "s2", "s3", "s4"]])
    rows = result.rows()
    assert len(rows) == 8
    assert rows[5] == {
        "id": "q2",
        "sample": 1,
        "prompt": "Capital?",
        "rationale": "s2",
        "answer": "City of Paris",
        "reference": "Paris",
        "references": ["Paris", "City of Paris"],
        "verdicts": {"match": 1.0, "exact": 1.0, "f1": 1.0},
    }
    assert rows[1]["verdicts"] == {"match": 1.0, "exact": 0.0, "f1": 0.5}


def test_a_metric_is_the_mean_of_its_questions():
    result = evaluator()
    result.update(EXAMPLES[:1], ANSWERS[:1])
    result.update(EXAMPLES[1:], ANSWERS[1:])
    first, second = result.questions()
    assert (first["id"], first["pass_at_1"], second["id"], second["maj_at_4"]) == ("q1", 3 / 4, "q2", 1 / 3)
    means = {name: (first[name] + second[name]) / 2 for name in first if name != "id"}
    assert means == pytest.approx({name: result.compute()[name].item() for name in means})
    assert set(result.compute()) - set(means) == {"tie_rate", "unanswered_rate"}
    result.reset()
    assert result.questions() == []


def test_reset_forgets_counts_and_rows():
    result = evaluator()
    result.update(EXAMPLES[:1], ANSWERS[:1])
    result.reset()
    result.update(EXAMPLES[1:], ANSWERS[1:])
    assert len(result.rows()) == 4
    assert result.compute()["exact_pass_at_1"].item() == 0.25


def test_the_normaliser_decides_what_votes_together():
    result = Evaluator({"": exact_match}, 3, lambda answer: answer.strip("."))
    result.update(EXAMPLES[:1], [["2.", "2.", "3"]])
    result.update(EXAMPLES[:1], [["2", "2.", "3"]])
    assert result.compute()["maj_at_3"].item() == (0 + 0.5) / 2
    assert result.compute()["tie_rate"].item() == 0


def test_too_few_answers_is_an_error():
    with pytest.raises(ValueError, match="draw more samples, or lower k"):
        evaluator().update(EXAMPLES, [answers[:3] for answers in ANSWERS])


def test_nothing_of_it_is_in_a_checkpoint():
    result = evaluator()
    result.update(EXAMPLES, ANSWERS)
    assert not result.state_dict()
    assert not list(result.parameters())
    assert result.to(torch.float16).compute()["tie_rate"].dtype == torch.float64
