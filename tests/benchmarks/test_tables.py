"""Records in Parquet and CSV files: their types, and errors that say where in one sentence."""

import datetime
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jqlight.benchmarks.records import read_file, read_path
from jqlight.cli.main import main
from jqlight.errors import DataError

BENCHMARK = '''
from jqlight.benchmarks import Benchmark, Item


class Mine(Benchmark):
    """Of one's own."""

    def item(self, record):
        return Item(record.text("question"), record.text("answer"), references=record.aliases("aliases"))
'''


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_a_parquet_row_is_as_the_same_record_in_json(tmp_path):
    records = [
        {"id": 7, "question": "Où?\nIci, là.", "answer": "Gand", "n": 1.5, "flag": True, "aliases": ["a", "b"]},
        {"id": 8, "question": "Who?", "answer": "Eyck", "n": None, "flag": False, "aliases": None},
        {"id": 9, "question": "", "answer": "", "n": 2.0, "flag": None, "aliases": []},
    ]
    for record in records:
        record["context"] = {"title": ["A", "B"], "sentences": [["x", "y"], []]}
        record["paragraphs"] = [{"title": "A", "supporting": True}]
    (tmp_path / "a.json").write_text(json.dumps(records))
    path = parquet(tmp_path / "a.parquet", **{name: [record[name] for record in records] for name in records[0]})
    assert list(read_file(path, "id")) == list(read_file(tmp_path / "a.json", "id"))
    first, second, _ = read_file(path, "id")
    assert (first.text("n"), first.flag("flag"), first.aliases("aliases")) == ("1.5", True, ["a", "b"])
    assert second.aliases("aliases") == [] and second["id"] == "8"
    assert first.objects("paragraphs")[0].flag("supporting")


def test_parquet_has_types_that_json_has_not(tmp_path):
    values = {
        "day": datetime.date(1999, 12, 31),
        "moment": datetime.datetime(2000, 1, 2, 3, 4, 5),
        "price": Decimal("12.50"),
        "small": pa.scalar(3, pa.int8()),
        "half": pa.scalar(0.5, pa.float32()),
        "word": pa.scalar("w", pa.large_string()),
        "kind": pa.scalar("k").cast(pa.dictionary(pa.int8(), pa.string())),
    }
    path = parquet(tmp_path / "a.parquet", id=["1"], **{name: pa.array([value]) for name, value in values.items()})
    (record,) = read_file(path, "id")
    texts = [record.text(name) for name in values]
    assert texts == ["1999-12-31", "2000-01-02T03:04:05", "12.50", "3", "0.5", "w", "k"]


def test_csv_cells_are_the_texts_that_were_written(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        "\ufeffid,question,answer,aliases\r\n"
        '007,"Which river, and where?",1.50,Schelde\r\n'
        '\r\n8,"He said ""no"".\nWhy?",Ünïque,\r\n'.encode()
    )
    first, second = read_file(path, "id")
    assert dict(first) == {"id": "007", "question": "Which river, and where?", "answer": "1.50", "aliases": "Schelde"}
    assert first.aliases("aliases") == ["Schelde"] and second.aliases("aliases") == []
    assert (second.text("question"), second.text("answer")) == ('He said "no".\nWhy?', "Ünïque")


def test_a_long_csv_cell(tmp_path):
    (tmp_path / "a.csv").write_text(f"id,question\n1,{'x' * 200_000}\n")
    (record,) = read_file(tmp_path / "a.csv", "id")
    assert len(record.text("question")) == 200_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.csv: holds no records"),
        ("id,question\n", r"a\.csv: holds no records"),
        ("id;question\n1;x\n", r"a\.csv: columns are separated by ';', allowed are commas"),
        ("id\tquestion\n1\tx\n", "columns are separated by "),
        ("id,question\n1,x,y\n", r"a\.csv line 2: has 3 cells, the first row names 2 columns"),
        ('id,question\n1,"x\ny"\n2\n', r"a\.csv line 4: has 1 cells"),
        ("id,id\n1,x\n", r"a\.csv: column 'id' is there twice"),
        ('id,question\n1,"x\n', r"a\.csv line \d: not CSV"),
        ("name,question\n1,x\n", r"a\.csv line 2: field 'id' must be a non-empty id, given None"),
        ("id,question\n,x\n", "field 'id' must be a non-empty id, given ''"),
    ],
)
def test_a_csv_file_that_cannot_be_read_is_one_sentence(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        list(read_file(tmp_path / "a.csv", "id"))
    assert "\n" not in str(error.value)


def test_what_is_no_parquet_is_one_sentence(tmp_path):
    (tmp_path / "a.parquet").write_text("id,question\n")
    whole = parquet(tmp_path / "b.parquet", id=["1"], question=["x" * 1000])
    (tmp_path / "c.parquet").write_bytes(whole.read_bytes()[:-100])
    (tmp_path / "d.parquet").mkdir()
    for name in ("a", "c", "d"):
        with pytest.raises(DataError, match=rf"{name}\.parquet: cannot be read as Parquet \(") as error:
            list(read_file(tmp_path / f"{name}.parquet", "id"))
        assert "\n" not in str(error.value)


def test_parquet_values_that_no_field_takes_are_named(tmp_path):
    path = parquet(tmp_path / "a.parquet", id=["1", "2"], question=[b"\xff", None], year=[float("nan"), 1.0])
    first, second = read_file(path, "id")
    with pytest.raises(DataError, match=r"a\.parquet: record 1: field 'question' must be a string, given b'\\xff'"):
        first.text("question")
    with pytest.raises(DataError, match="field 'year' must be a string, given nan"):
        first.text("year")
    with pytest.raises(DataError, match="record 2: field 'question' must be a string, given None"):
        second.text("question")
    with pytest.raises(DataError, match=r"row 1: field 'id' must be a non-empty id, given 1\.0"):
        list(read_file(parquet(tmp_path / "b.parquet", id=[1.0]), "id"))


@pytest.mark.parametrize("names", [("train.parquet", "validation.csv"), ("train-00000-of-00001.parquet", "dev.csv")])
def test_a_folder_may_mix_kinds(tmp_path, names):
    parquet(tmp_path / names[0], id=["a", "b"])
    (tmp_path / names[1]).write_text("id\nc\n")
    (tmp_path / "test.jsonl").write_text('{"id": "d"}\n')
    found = [[r["id"] for r in read_path(tmp_path, split, "id")] for split in ("train", "validation", "test")]
    assert found == [["a", "b"], ["c"], ["d"]]


def test_a_benchmark_of_ones_own_is_read_from_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tabled.py").write_text(BENCHMARK)
    rows = [(str(i), f"e{i}", "e1") for i in range(40)]
    (tmp_path / "a.csv").write_text("id,question,answer\n" + "".join(f"{','.join(row)}\n" for row in rows))
    parquet(tmp_path / "a.parquet", **dict(zip(("id", "question", "answer"), map(list, zip(*rows)))))
    shown = []
    for path in ("a.csv", "a.parquet"):
        options = ["--data.path", path, "--data.max_prompt_tokens", "9", "-n", "1"]
        assert main(["prompts", "--config", "quickstart", "--data", "tabled.Mine", *options]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and "--- answer: e1" in shown[0]
