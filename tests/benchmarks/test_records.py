"""Files, folders and their errors."""

import json

import pytest

from jqlight.benchmarks.records import Record, find_file, read_file, read_path, share, stable_hash
from jqlight.errors import ConfigError, DataError


def write(path, ids, lines=False):
    records = [{"id": i, "text": f"t{i}"} for i in ids]
    text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records)
    path.write_text(text, encoding="utf-8")
    return path


def ids(records):
    return [record["id"] for record in records]


def test_a_folder_has_a_file_per_split(tmp_path):
    write(tmp_path / "train.json", "ab")
    write(tmp_path / "validation.jsonl", "cd", lines=True)
    write(tmp_path / "test.json", "e")
    assert [ids(read_path(tmp_path, split, "id")) for split in ("train", "validation", "test")] == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
    ]


@pytest.mark.parametrize(
    ("split", "name"),
    [("train", "hotpot_train_v1.1.json"), ("train", "musique_ans_v1.0_train.jsonl"), ("validation", "dev.json")],
)
def test_official_names_are_found(tmp_path, split, name):
    write(tmp_path / name, "ab", lines=name.endswith("l"))
    write(tmp_path / "test.json", "c")
    assert ids(read_path(tmp_path, split, "id")) == ["a", "b"]


def test_without_a_test_file_the_dev_file_is_halved(tmp_path):
    everything = [f"q{i}" for i in range(200)]
    write(tmp_path / "dev.json", everything)
    validation, test = (ids(read_path(tmp_path, split, "id")) for split in ("validation", "test"))
    assert sorted(validation + test) == sorted(everything)
    assert 70 < len(validation) < 130
    write(tmp_path / "dev.json", everything[::-1])
    assert ids(read_path(tmp_path, "test", "id")) == test[::-1]


def test_one_file_serves_all_three_splits(tmp_path):
    everything = [f"q{i}" for i in range(500)]
    path = write(tmp_path / "questions.jsonl", everything, lines=True)
    train, validation, test = (ids(read_path(path, split, "id")) for split in ("train", "validation", "test"))
    assert sorted(train + validation + test) == sorted(everything)
    assert 370 < len(train) < 430
    assert 30 < len(validation) < 75 and 30 < len(test) < 75


def test_a_split_of_a_shared_source_does_not_depend_on_the_others():
    records = [Record({"id": str(i)}, "") for i in range(100)]
    assert (
        ids(share(records, "id", ("validation", "test"), "test"))
        == ids(share(records[::-1], "id", ("validation", "test"), "test"))[::-1]
    )


def test_stable_hash_is_pinned_and_tells_parts_apart():
    assert stable_hash("subset", 0, "q1") == PINNED
    assert stable_hash("a", "bc") != stable_hash("ab", "c")


PINNED = 16904895073239531137


def test_a_missing_path_names_the_key(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.path: given '.*nowhere', allowed is an existing file or folder"):
        list(read_path(tmp_path / "nowhere", "train", "id"))


def test_a_folder_without_the_split_names_the_allowed_files(tmp_path):
    write(tmp_path / "train.json", "a")
    with pytest.raises(ConfigError, match=r"no file for the test split; allowed names are test\.json, test\.jsonl"):
        list(read_path(tmp_path, "test", "id"))


def test_two_candidates_for_a_split_are_refused(tmp_path):
    write(tmp_path / "a_train.json", "a")
    write(tmp_path / "b_train.json", "b")
    with pytest.raises(ConfigError, match=r"several files for one split \(a_train\.json, b_train\.json\)"):
        find_file(tmp_path, ("train.json", "*train*.json"))
    write(tmp_path / "train.json", "c")
    assert find_file(tmp_path, ("train.json", "*train*.json")) == tmp_path / "train.json"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "[{]", r"x\.json: not JSON"),
        ("x.json", "[]", r"x\.json: holds no records"),
        ("x.jsonl", "\n\n", r"x\.jsonl: holds no records"),
        ("x.json", '{"id": "a"}', "must hold a JSON array of records"),
        ("x.json", '[{"id": "a"}, 7]', "record number 2: must be an object, given 7"),
        ("x.json", '[{"text": "a"}]', "record number 1: field 'id' must be a non-empty id, given None"),
        ("x.jsonl", '{"id": "a"}\n\n{"id": "b"', r"x\.jsonl line 3: not JSON"),
        ("x.jsonl", '{"id": ""}', r"x\.jsonl line 1: field 'id' must be a non-empty id"),
    ],
)
def test_unreadable_files_name_the_place(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_file(path, "id"))


def test_numbers_as_ids_become_strings(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[{"id": 7}]')
    assert ids(read_file(path, "id")) == ["7"]


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda r: r["z"], r"file: record 7: field 'z' is missing; fields are \['a', 'b', 'c', 'd', 'e', 'f'\]"),
        (lambda r: r.text("b"), r"field 'b' must be a string, given \[None, 'x'\]"),
        (lambda r: r.text("e"), "field 'e' must be a string, given nan"),
        (lambda r: r.text("f"), "field 'f' must be a string, given True"),
        (lambda r: r.flag("a"), "field 'a' must be true or false, given 'text'"),
        (lambda r: r.objects("b"), r"field 'b' must hold objects, given \[None, 'x'\]"),
        (lambda r: r.aliases("c"), "field 'c' must be a list"),
        (lambda r: r.texts("b"), "field 'b' must be a list of strings"),
        (lambda r: r.items_of("a"), "field 'a' must be a list, given 'text'"),
        (lambda r: r.inner("a"), "field 'a' must be an object"),
        (lambda r: r.inner("c").text("deep"), "file: record 7, field 'c': field 'deep' must be a string, given None"),
        (lambda r: r.text("d"), r"given \[\[0, 1.{0,60}\.\.\.$"),
    ],
)
def test_records_name_the_field(read, message):
    record = Record(
        {"a": "text", "b": [None, "x"], "c": {"deep": None}, "d": [[0, 1]] * 100, "e": float("nan"), "f": True},
        "file: record 7",
    )
    with pytest.raises(DataError, match=message):
        read(record)


def test_records_give_typed_fields():
    record = Record(
        {"a": "text", "b": ["x", 1, 2.5, 1e16, 1e-05], "c": {"deep": "y"}, "d": [{"e": 42}], "n": None, "f": True},
        "file",
    )
    assert (record.text("a"), record.inner("c").text("deep")) == ("text", "y")
    assert [inner.text("e") for inner in record.objects("d")] == ["42"]  # a number in a column of texts
    assert record.texts("b") == ["x", "1", "2.5", "10000000000000000", "0.00001"]
    assert [record.aliases(key) for key in ("a", "b", "n", "missing")] == [["text"], record.texts("b"), [], []]
    assert record.flag("f")
