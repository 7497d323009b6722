import json
import math

import pytest

from jqlight.errors import ConfigError
from jqlight.tracking.journal import Journal, read_record


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "run")


def test_metrics_are_on_disk_line_by_line(journal):
    journal.log_metrics({"train/success": 0.5}, 1)
    journal.log_metrics({"train/success": math.nan, "train/log_success": -math.inf}, 2)
    lines = [json.loads(line) for line in journal.metrics_path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["train/success"] == 0.5
    assert math.isnan(lines[1]["train/success"])
    assert lines[1]["train/log_success"] == -math.inf
    assert lines[0]["time"] == pytest.approx(lines[1]["time"], abs=60)


def test_reading_continues_where_it_stopped(journal):
    journal.log_metrics({"a": 1.0}, 1)
    rows, offset = journal.metrics_from(0)
    assert [row["a"] for row in rows] == [1.0]
    assert journal.metrics_from(offset) == ([], offset)
    journal.log_metrics({"a": 2.0}, 2)
    rows, _ = journal.metrics_from(offset)
    assert [row["a"] for row in rows] == [2.0]


def test_a_line_being_written_waits_for_the_next_read(journal):
    journal.log_metrics({"a": 1.0}, 1)
    with journal.metrics_path.open("a") as file:
        file.write('{"step": 2, "ti')
    rows, offset = journal.metrics_from(0)
    assert len(rows) == 1
    assert offset == journal.metrics_path.read_text().index("\n") + 1


def test_a_line_cut_off_by_a_kill_costs_no_other_line(journal):
    journal.log_metrics({"a": 1.0}, 1)
    with journal.metrics_path.open("a") as file:
        file.write('{"step": 2, "ti')
    again = Journal(journal.folder)
    again.log_metrics({"a": 3.0}, 3)
    assert again.series("a") == [(1, 1.0), (3, 3.0)]


DAMAGED = [b"\x00\xff\x80", b'{"step": "x"}', b'{"step": 2, "a": "x"}', b"[1]", b'{"a": 2.0}', b"5"]


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_lines_cost_no_other_line(journal, damage):
    journal.log_metrics({"a": 1.0}, 1)
    with journal.metrics_path.open("ab") as file:
        file.write(damage + b"\n")
    again = Journal(journal.folder)
    again.log_metrics({"a": 3.0}, 3)
    assert again.series("a") == [(1, 1.0), (3, 3.0)] and again.last_step() == 3


def test_of_a_step_logged_twice_the_later_value_counts(journal):
    for step, value in [(1, 0.1), (2, 0.2), (3, 0.3), (2, 0.25)]:
        journal.log_metrics({"a": value}, step)
    assert journal.series("a") == [(1, 0.1), (2, 0.25), (3, 0.3)]


def test_the_record_merges_and_survives(journal):
    journal.update(run_id="r", params={"q": "0.5"})
    journal.update(params={"seed": "1"}, status="RUNNING")
    expected = {"run_id": "r", "params": {"q": "0.5", "seed": "1"}, "status": "RUNNING"}
    assert read_record(journal.folder) == expected
    assert Journal(journal.folder).record == expected


def test_a_folder_without_a_record_has_an_empty_one(tmp_path):
    assert read_record(tmp_path / "nowhere") == {}
    for damaged in (b"{", b"", b"\xff\xfe{}", b"[]"):
        (tmp_path / "run.json").write_bytes(damaged)
        assert read_record(tmp_path) == {}


def test_artifacts_have_their_names_in_mlflow(journal):
    journal.log_text("config.yaml", "q: 0.5\n")
    journal.log_text("notes/data.txt", "3 dropped")
    journal.log_rows("step_000010", [{"answer": "Zürich", "correct": True}])
    assert {name: path.read_text() for name, path in journal.artifacts()} == {
        "config.yaml": "q: 0.5\n",
        "samples/step_000010.json": '{"answer": "Zürich", "correct": true}\n',
        "notes/data.txt": "3 dropped",
    }


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ({"run_id": 3}, "run_id: given 3, allowed is a text"),
        ({"tags": None}, "tags: given None, allowed is a mapping"),
        ({"start_time": math.nan}, "start_time: given nan, allowed is a time in seconds"),
        ({"end_time": True}, "end_time: given True, allowed is a time"),
        (
            {"uploaded": {"metrics_bytes": 1.5}},
            "uploaded: metrics_bytes: given 1.5, allowed is a whole number of bytes",
        ),
        ({"uploaded": {"tables": {}}}, "uploaded: tables: given {}, allowed is a list"),
    ],
)
def test_a_record_changed_by_hand_is_one_sentence(journal, field, sentence):
    journal.update(run_name="r", **field)
    with pytest.raises(ConfigError, match=rf"run\.json: {sentence}"):
        read_record(journal.folder)


def test_a_record_nested_too_deep_is_none(journal):
    (journal.folder / "run.json").write_text("[" * 100_000)
    assert read_record(journal.folder) == {}
