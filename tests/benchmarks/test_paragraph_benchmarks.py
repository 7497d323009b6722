"""HotpotQA and MuSiQue from the fixtures in their official formats."""

import json

import pytest

from jqlight.benchmarks import HotpotQA, MuSiQue
from jqlight.errors import ConfigError, DataError


@pytest.fixture
def hotpotqa(fixtures, token_format):
    return HotpotQA(path=str(fixtures / "hotpotqa")).bind(token_format)


@pytest.fixture
def musique(fixtures, token_format):
    return MuSiQue(path=str(fixtures / "musique")).bind(token_format)


def by_id(examples):
    return {example.id: example for example in examples}


def test_hotpotqa_cold_is_paragraphs_and_question_alone(hotpotqa):
    example = by_id(hotpotqa.examples("train"))[f"{1:024x}"]
    assert example.prompt == (
        "Mill Bridge: Mill Bridge is a stone bridge over the river Aune. It was built in 1784.\n"
        "Aune: The Aune is a river in the north of Varland. It flows into Lake &quot;Sorn&quot;. "
        "Its length is 88\u00a0km.\n"
        "Jon Aas: Jon Aas (born 1950) is a painter from the town of Sorn.\n"
        "Sorn: Sorn is a town with 4,200 inhabitants. Its mayor is Ida Berg.\n\n"
        "Question: Into which lake does the river under Mill Bridge flow?\n"
        "<think>\n"
    )
    assert example.answer == "Lake Sorn"
    assert example.references == ("Lake Sorn",)


def test_hotpotqa_gold_context_keeps_the_supporting_paragraphs_in_order(fixtures, token_format):
    benchmark = HotpotQA("gold", path=str(fixtures / "hotpotqa")).bind(token_format)
    prompts = {example.id: example.prompt for example in benchmark.examples("validation")}
    names = [line.split(":")[0] for line in prompts[f"{11:024x}"].splitlines()]
    assert names == ["Mill Bridge", "Aune", "", "Question", "<think>"]
    assert len(prompts) == 2  # a sentence index beyond the paragraph does no harm


def test_hotpotqa_verifiers(hotpotqa):
    scores = {prefix: verifier("in the north, so no", ["no"]) for prefix, verifier in hotpotqa.verifiers.items()}
    assert scores == {"": 1, "exact_": 0, "word_": 1, "em_": 0, "f1_": 0}
    scores = {prefix: verifier("The Lake Sorn.", ["Lake Sorn"]) for prefix, verifier in hotpotqa.verifiers.items()}
    assert scores == {"": 1, "exact_": 0, "word_": 1, "em_": 1, "f1_": 1}
    assert hotpotqa.normalise("The  Lake Sorn!") == "lake sorn"


def test_musique_cold_full_and_gold(musique, fixtures, token_format):
    example = by_id(musique.examples("train"))["2hop__1_2"]
    assert [line.split(":")[0] for line in example.prompt.splitlines()[:5]] == [
        "Mill Bridge", "Aune", "Jon Aas", "Sorn", "Sorn",
    ]  # fmt: skip
    gold = MuSiQue("gold", path=str(fixtures / "musique")).bind(token_format)
    lines = by_id(gold.examples("train"))["2hop__1_2"].prompt.splitlines()
    assert lines == [
        "Jon Aas: Jon Aas (born 1950) is a painter from the town of Sorn.",
        "Sorn: Sorn is a town with 4,200 inhabitants. Its mayor is Ida Berg.",  # by flag, its title repeats
        "",
        "Question: Who is the mayor of the town that Jon Aas is from?",
        "<think>",
    ]


def test_musique_aliases_count_for_the_official_scores_only(musique):
    example = by_id(musique.examples("train"))["2hop__1_2"]
    assert example.references == ("Ida Berg", "Berg", "I. Berg")
    scores = {prefix: verifier("I Berg", example.references) for prefix, verifier in musique.verifiers.items()}
    assert scores == {"": 0, "exact_": 0, "word_": 0, "em_": 1, "f1_": 1}
    assert musique.verifiers["f1_"]("no Berg", ["no one"]) == 0.5  # no yes/no rule


@pytest.mark.parametrize(("given", "others"), [(None, ()), ("Berg", ("Berg",)), (["Berg", 7], ("Berg", "7"))])
def test_musique_aliases_may_be_none_one_or_a_list(tmp_path, fixtures, token_format, given, others):
    record = json.loads((fixtures / "musique" / "train.jsonl").read_text("utf-8").splitlines()[0])
    (tmp_path / "train.jsonl").write_text(json.dumps(record | {"answer_aliases": given}))
    (example,) = MuSiQue(path=str(tmp_path)).bind(token_format).examples("train")
    assert example.references == (example.answer, *others)


def test_unanswerable_musique_records_are_dropped_and_counted(tmp_path, fixtures, token_format):
    lines = (fixtures / "musique" / "train.jsonl").read_text("utf-8").splitlines()
    twin = {**json.loads(lines[0]), "id": "twin", "answerable": False}
    (tmp_path / "musique_ans_v1.0_train.jsonl").write_text("\n".join([*lines, json.dumps(twin)]))
    (tmp_path / "musique_full_v1.0_train.jsonl").write_text("not read")
    benchmark = MuSiQue(path=str(tmp_path)).bind(token_format)
    assert len(benchmark.examples("train")) == 3
    assert benchmark.dropped["train"] == {"not answerable": 1}


def trimmed(tmp_path, fixtures, name, lose):
    """A copy of the training file in which ``lose`` has taken paragraphs from each record."""
    source = next((fixtures / name).glob("train.json*"))
    text = source.read_text("utf-8")
    records = [json.loads(line) for line in text.splitlines()] if source.suffix == ".jsonl" else json.loads(text)
    for number, record in enumerate(records):
        lose(number, record)
    lines = source.suffix == ".jsonl"
    (tmp_path / source.name).write_text("\n".join(map(json.dumps, records)) if lines else json.dumps(records))
    return {"context": "gold", "path": str(tmp_path)}


def one_gold(record):
    """Take one supporting paragraph from the record; its name."""
    if "paragraphs" in record:
        lost = next(p for p in record["paragraphs"] if p["is_supporting"])
        record["paragraphs"].remove(lost)
        return f"number {lost['idx']}"
    title = record["supporting_facts"][0][0]
    record["context"] = [pair for pair in record["context"] if pair[0] != title]
    return title


@pytest.mark.parametrize(("kind", "name"), [(HotpotQA, "hotpotqa"), (MuSiQue, "musique")])
def test_gold_context_drops_records_without_their_paragraphs(tmp_path, fixtures, token_format, kind, name):
    settings = trimmed(tmp_path, fixtures, name, lambda number, record: None if number else one_gold(record))
    whole = kind("gold", path=str(fixtures / name)).bind(token_format)
    benchmark = kind(**settings).bind(token_format)
    assert len(benchmark.examples("train")) == len(whole.examples("train")) - 1
    assert benchmark.dropped["train"] == {"gold paragraph missing": 1}
    assert "1 gold paragraph missing" in benchmark.summary()
    full = kind(**settings | {"context": "full"}).bind(token_format)
    assert len(full.examples("train")) == len(whole.examples("train"))


@pytest.mark.parametrize(("kind", "name"), [(HotpotQA, "hotpotqa"), (MuSiQue, "musique")])
def test_gold_context_without_any_paragraphs_names_record_and_title(tmp_path, fixtures, token_format, kind, name):
    lost = []
    benchmark = kind(**trimmed(tmp_path, fixtures, name, lambda _, record: lost.append(one_gold(record))))
    with pytest.raises(
        ConfigError, match=r"data\.context: given gold, but .*: record .* lacks the supporting"
    ) as error:
        benchmark.bind(token_format).check("train")
    assert any(repr(title) in str(error.value) for title in lost)
    assert "gold paragraph missing" in str(error.value)


@pytest.mark.parametrize("kind", [HotpotQA, MuSiQue])
def test_context_is_checked(kind):
    with pytest.raises(ConfigError, match=r"data\.context: given 'half', allowed are full and gold"):
        kind(context="half")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": None}, "field 'answer' must be a string, given None"),
        ({"context": [["A"]]}, r"field 'context' must be a list of \[title, \.\.\.\] pairs"),
        ({"context": [["A", "one string"]]}, "field 'context' must hold lists of sentences"),
        ({"context": "x"}, "field 'context' must be a list"),
        ({"question": [3]}, "field 'question' must be a string"),
        ({"question": True}, "field 'question' must be a string"),
        ({"context": [[["A"], ["x"]]]}, r"field 'context' must be a list of \[title, \.\.\.\] pairs"),
        ({"context": [["A", [None]]]}, "field 'context' must be lists of sentences"),
        ({"context": {"title": ["A"], "sentences": []}}, r"HotpotQA\.item cannot read it \(ValueError"),
    ],
)
def test_a_malformed_hotpotqa_record_names_file_id_and_field(tmp_path, fixtures, token_format, change, message):
    records = json.loads((fixtures / "hotpotqa" / "train.json").read_text("utf-8"))
    records[2] |= change
    (tmp_path / "train.json").write_text(json.dumps(records))
    with pytest.raises(DataError, match=rf"train\.json: record {3:024x}: {message}"):
        HotpotQA(path=str(tmp_path)).bind(token_format).examples("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paragraphs": ["x"]}, ": field 'paragraphs' must hold objects"),
        ({"paragraphs": [{"title": "x"}]}, ", field 'paragraphs', number 0: field 'paragraph_text' is missing"),
        ({"answer_aliases": {"a": 1}}, ": field 'answer_aliases' must be a list"),
        ({"answer_aliases": [["x"]]}, ": field 'answer_aliases' must be a list of strings"),
        ({"answerable": "no"}, ": field 'answerable' must be true or false"),
    ],
)
def test_a_malformed_musique_record_names_file_id_and_field(tmp_path, fixtures, token_format, change, message):
    records = [json.loads(line) for line in (fixtures / "musique" / "train.jsonl").read_text("utf-8").splitlines()]
    records[1] |= change
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, records)))
    with pytest.raises(DataError, match=rf"train\.jsonl: record 2hop__3_4{message}"):
        MuSiQue(path=str(tmp_path)).bind(token_format).examples("train")


def emptied(record):
    """Take every paragraph's text from the record, or the paragraphs themselves."""
    if "paragraphs" in record:
        record["paragraphs"] = [{**p, "paragraph_text": " "} for p in record["paragraphs"]]
    else:
        record["context"] = []


@pytest.mark.parametrize(("kind", "name"), [(HotpotQA, "hotpotqa"), (MuSiQue, "musique")])
def test_a_record_that_asks_nothing_or_of_nothing_is_dropped_and_counted(tmp_path, fixtures, token_format, kind, name):
    def lose(number, record):
        if number < 2:
            emptied(record) if number else record.update(question="\u200b ")

    settings = trimmed(tmp_path, fixtures, name, lose)
    benchmark = kind(**settings | {"context": "full"}).bind(token_format)
    assert (
        len(benchmark.examples("train"))
        == len(kind(path=str(fixtures / name)).bind(token_format).examples("train")) - 2
    )
    assert benchmark.dropped["train"] == {"empty question": 1, "paragraphs without text": 1}
    gold = kind(**settings).bind(token_format)
    gold.examples("train")
    assert sum(gold.dropped["train"].values()) == 2


@pytest.mark.parametrize(("kind", "name"), [(HotpotQA, "hotpotqa"), (MuSiQue, "musique")])
def test_a_question_is_shared_whatever_paragraphs_are_around_it(tmp_path, fixtures, token_format, kind, name):
    def turned(number, record):
        key = "paragraphs" if "paragraphs" in record else "context"
        record[key] = record[key][::-1]
        record["question"] = f" {record['question'].upper()}"
        record["id" if key == "paragraphs" else "_id"] = f"other {number}"

    settings = trimmed(tmp_path, fixtures, name, turned)
    source = next(tmp_path.glob("train.json*"))
    source.rename(source.with_stem("validation"))
    (tmp_path / source.name).write_text(next((fixtures / name).glob("train.json*")).read_text("utf-8"))
    (tmp_path / "test.json").write_text("[]")
    benchmark = kind(**settings | {"context": "full"}).bind(token_format)
    shared = len(benchmark.examples("train"))
    assert shared == len(benchmark.examples("validation")) > 1
    assert f"{shared} questions shared with train" in benchmark.summary()
