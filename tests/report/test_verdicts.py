"""Verdicts on made-up runs in a store: better, worse, cannot tell; with and without results by question."""

import random

import mlflow
import pandas as pd
import pytest
from synthetic_runs import STEPS, VALIDATIONS, Fake, log_sweep

from jqlight.errors import ConfigError
from jqlight.report.compare import compare
from jqlight.report.html import read_report
from jqlight.report.runs import RunRecord, get_run
from jqlight.report.sentences import sentence
from jqlight.report.tables import summary_table, verdict_table
from jqlight.report.verdicts import check_judged, question_notes, verdicts


def record(run: Fake) -> RunRecord:
    """The run as a store gives it back."""
    curves = {"train/success": [(step, run.success(step)) for step in STEPS]}
    for name, factor in (("val/maj_at_16", 1.0), ("val/pass_at_1", 0.25)):
        curves[name] = [(step, run.validation(step) * factor) for step in VALIDATIONS]
    last = {name: curve[-1][1] for name, curve in curves.items()}
    facts = (run.estimator, run.q, run.benchmark, run.scenario, str(run.seed))
    return RunRecord(run.name, run.name, "FINISHED", 0, *facts, params={}, tags={}, last=last, curves=curves)


class Verdicts:
    """What a report says of some runs, without a store."""

    def __init__(self, runs: list[Fake], metric: str = "maj_at_16", baseline: str | None = None) -> None:
        records = [record(run) for run in runs]
        kept = {run.name: pd.DataFrame({"maj_at_16": dict(run.by_question)}) for run in runs if run.questions}
        check_judged(metric, records)
        comparison = compare(records)
        self.rows = verdicts(comparison, metric, kept, baseline)
        self.notes = question_notes(comparison, self.rows, metric, kept)
        self.sentences = [sentence(row, with_panel=False) for row in self.rows]
        self.summary = summary_table(comparison, self.rows, metric)
        self.by_method = {row.setting.method: row for row in self.rows}


def scored(estimator, seed, level, *, count=40, first=0, q="0.75", middle=20):
    """A run with ``level`` of its questions right, which ones depending on the seed."""
    order = random.Random(seed).sample(range(count), count)
    questions = tuple(float(order[i] < level * count) for i in range(count))
    q = "" if estimator == "GRPO" else q
    return Fake(estimator, q, seed, middle, sum(questions) / count, questions=questions, first_question=first)


FIVE = [scored("GARL", s, 0.75 + 0.025 * (s % 3)) for s in range(5)]
FIVE += [scored("PAFT", s, 0.7 + 0.025 * (s % 4)) for s in range(5)]
FIVE += [scored("GRPO", s, 0.1 + 0.025 * (s % 2)) for s in range(5)]


@pytest.fixture(scope="module")
def five():
    return Verdicts(FIVE)


def test_a_row_far_below_is_worse_and_a_close_one_cannot_be_told(five):
    found = five.by_method
    assert [found[m].word for m in ("GARL q=0.75", "PAFT q=0.75", "GRPO")] == ["highest", "cannot tell", "worse"]
    grpo = found["GRPO"]
    assert grpo.corrected == pytest.approx(3 * 2 / 252)  # all of three pairs, since the data chose the reference
    assert grpo.difference.value == pytest.approx(0.11 - 0.77)
    assert len(grpo.sample.table.columns) == 40
    assert grpo.needed is None and found["PAFT q=0.75"].needed > 5


def test_sentences_say_it_in_words(five):
    garl, paft, grpo = five.sentences
    assert garl.startswith("GARL q=0.75 has the highest mean of 0.770 (95 % interval ")
    assert garl.endswith("; 5 seeds, 40 questions).")
    assert paft.startswith(
        "PAFT q=0.75 cannot be told from GARL q=0.75 with 5 and 5 seeds: 0.040 lower, while anything"
    )
    assert "seeds each would tell (an estimate from the spread of these runs)." in paft
    assert grpo.startswith("GRPO is worse than GARL q=0.75: 0.660 lower (95 % interval of the difference ")
    assert "p = 0.024, corrected for 3 comparisons)." in grpo


def test_summary_and_table_carry_the_verdicts(five):
    assert list(five.summary.columns[:5]) == ["n", "maj@16", "95 % interval", "verdict", "seeds to tell"]
    assert five.summary["verdict"].tolist() == ["highest", "cannot tell", "worse"]
    assert verdict_table(five.rows)["corrected p"].tolist()[1] == "0.024"
    assert five.notes == []


def test_a_report_reads_results_by_question_from_the_store(tmp_path):
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = [run for run in FIVE if run.seed < 2]
    parent = log_sweep(client, runs, artifacts=(tmp_path / "artifacts").as_uri())
    found = read_report(client, "here", parents=[get_run(client, parent)])
    assert [len(verdict.sample.table.columns) for verdict in found.verdicts] == [40, 40, 40]
    assert found.sentences() == Verdicts(runs).sentences
    page = found.html()
    assert all(text in page for text in found.sentences())
    assert "A 95 % interval is the range" in page
    assert not [note for note in found.notes() if "by question" in note]


def test_a_named_baseline_is_one_comparison_less():
    runs = [
        scored(name, s, level + 0.025 * (s % 2)) for name, level in (("GARL", 0.8), ("GRPO", 0.1)) for s in range(5)
    ]
    runs += [scored("PAFT", s, 0.1 + 0.025 * (s % 3)) for s in range(5)]
    found = Verdicts(runs, baseline="GRPO").by_method
    assert found["GARL q=0.75"].word == "better" and found["GRPO"].word == "baseline"
    assert found["GARL q=0.75"].corrected == pytest.approx(2 * 2 / 252)
    with pytest.raises(ConfigError, match=r"--baseline: given GARL, allowed are the table's methods: GARL q=0\.75"):
        Verdicts(runs, baseline="GARL")


@pytest.mark.parametrize(
    ("seeds", "needed", "said"),
    [
        (1, 4, "A single run says nothing about other seeds; run at least 4 each."),
        (2, 4, "No difference, however large, gives so few runs a p below 0.33. About 4 seeds each would tell"),
        (3, 4, "No difference, however large, gives so few runs a p below 0.1. About 4 seeds each would tell"),
    ],
)
def test_few_seeds_cannot_tell_however_far_apart(seeds, needed, said):
    runs = [scored("GARL", s, 0.9 + 0.025 * (s % 2)) for s in range(seeds)]
    runs += [scored("GRPO", s, 0.1 + 0.025 * (s % 2)) for s in range(seeds)]
    found = Verdicts(runs)
    grpo = found.by_method["GRPO"]
    assert (grpo.word, grpo.needed) == ("cannot tell", needed)
    assert said in found.sentences[1]
    assert found.summary["seeds to tell"].tolist() == ["–", "4"]


def test_a_difference_on_few_questions_needs_more_questions_not_more_seeds():
    """Every run of one setting is right on the same five questions of eight, the other's on the same four."""
    runs = [
        Fake(name, "0.75", s, 20, right / 8, questions=tuple(float(i < right) for i in range(8)))
        for name, right in (("GARL", 5), ("PAFT", 4))
        for s in range(5)
    ]
    found = Verdicts(runs)
    paft = found.by_method["PAFT q=0.75"]
    assert paft.corrected == pytest.approx(2 / 252)
    assert (paft.word, paft.needed, paft.lacks_questions) == ("cannot tell", None, True)
    assert "more questions would tell, not more seeds" in found.sentences[1]


def test_a_row_without_another_beside_it_is_not_called_highest():
    found = Verdicts([scored("GARL", 0, 0.5)])
    assert found.rows[0].word == "alone"
    assert found.sentences[0].startswith("GARL q=0.75 has nothing beside it to be compared with, and a mean of ")


def test_runs_without_results_by_question_are_compared_over_seeds_alone_and_it_is_said():
    runs = [
        Fake(name, "0.5", s, best=best + 0.01 * s) for name, best in (("GARL", 0.8), ("PAFT", 0.2)) for s in range(5)
    ]
    found = Verdicts([*runs[:-1], scored("PAFT", 4, 0.25, q="0.5")])
    assert [verdict.word for verdict in found.rows] == ["highest", "worse"]
    assert all(verdict.sample.table is None for verdict in found.rows)
    assert any(note.startswith("9 of 10 runs kept no results by question") for note in found.notes)
    assert "5 seeds alone" in found.sentences[0]


@pytest.mark.parametrize(
    ("first", "over"),
    [(10, "the 30 questions that all of them answered"), (40, "seeds alone, as none is common")],
)
def test_different_questions_are_cut_to_the_common_ones_and_it_is_said(first, over):
    runs = [scored("GARL", s, 0.75) for s in range(3)] + [scored("PAFT", s, 0.5, first=first) for s in range(3)]
    found = Verdicts(runs)
    assert f"TwoHop, cold: runs were validated on different questions; verdicts are over {over}." in found.notes
    tables = [verdict.sample.table for verdict in found.rows]
    assert [table is None or len(table.columns) == 30 for table in tables] == [True, True]


def test_runs_that_never_escaped_are_late_not_left_out():
    runs = [scored("GARL", s, 0.75, middle=20 + s) for s in range(5)]
    runs += [scored("PAFT", s, 0.75 if s < 2 else 0.0, middle=20 if s < 2 else None) for s in range(5)]
    found = Verdicts(runs)
    assert found.summary["escape step"].tolist() == ["22 (5 of 5)", "> 60 (2 of 5)"]
    assert "Escape step: > 60 (2 of 5) against 22 (5 of 5) (log-rank p = " in found.sentences[1]


def test_another_metric_is_judged_and_a_wrong_one_refused():
    runs = [scored(name, s, level) for name, level in (("GARL", 0.75), ("GRPO", 0.25)) for s in range(5)]
    found = Verdicts(runs, metric="pass_at_1")
    assert found.rows[0].mean == pytest.approx(0.75 / 4)
    assert found.summary.columns[1] == "pass@1"
    with pytest.raises(ConfigError, match="--metric: given f1, allowed are maj_at_16, pass_at_1"):
        Verdicts(runs, metric="f1")
