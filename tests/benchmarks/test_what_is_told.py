"""What is told before a model is loaded: overlap, golds out of reach, empty splits, items of the wrong kind."""

import json
import logging
import unicodedata
from types import SimpleNamespace

import pytest
from tokenizers import normalizers

from jqlight.benchmarks import Benchmark, HotpotQA, Item
from jqlight.errors import ConfigError, DataError
from jqlight.metrics.verifiers import token_f1
from jqlight.token_format import Thinking, TokenFormat


class Own(Benchmark):
    def item(self, record):
        return Item(record.text("question"), record.text("answer"), references=record.get("aliases", ()))


@pytest.fixture
def own(tmp_path, token_format):
    def make(train, validation=(), kind=Own, budget=None, trainer=None, **settings):
        for split, rows in {"train": train, "validation": validation}.items():
            lines = [
                {"id": f"{split}{i}", "question": f"{split} {i}?", "answer": "7", **row} for i, row in enumerate(rows)
            ]
            (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        benchmark = kind(path=str(tmp_path), prompts_per_step=1, **settings)
        benchmark.trainer = trainer
        return benchmark.bind(token_format, max_answer_tokens=budget)

    return make


def remarks(benchmark, split="validation"):
    table = benchmark.summary().splitlines()
    start = table[0].find("remarks")
    return "none" if start < 0 else next(line[start:] for line in table if line.startswith(split))


def test_questions_that_are_trained_on_and_held_out_are_counted(own):
    held_out = [{"question": q} for q in ("q1", "q2", " Q0 ", "new")]
    benchmark = own([{"question": f"q{i}"} for i in range(3)], held_out)
    benchmark.setup("fit")
    assert remarks(benchmark) == "3 questions shared with train"
    assert remarks(benchmark, "train") == "none"


def test_questions_that_come_again_under_another_id_are_counted(own):
    benchmark = own([{"question": q} for q in ("a", "A ", "b")], [{"question": "x"}])
    benchmark.setup("fit")
    assert remarks(benchmark, "train") == "1 questions that come again"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question": "the </think> tag"}, "1 with control tokens, read as letters"),
        ({"answer": "an <eos>"}, "1 with control tokens, read as letters"),
        ({"question": "Beyonc\ufffd"}, "1 with lost letters (U+FFFD)"),
        ({"answer": "1999.0"}, "1 whole numbers with .0 as gold"),
        ({"answer": 1999.0}, "1 whole numbers with .0 as gold"),
    ],
)
def test_texts_that_are_not_what_they_seem_are_counted(own, row, told):
    benchmark = own([{}, row], [{}])
    benchmark.setup("fit")
    assert remarks(benchmark, "train") == told
    assert remarks(benchmark) == "none"


@pytest.mark.parametrize(
    ("normalizer", "answer", "written", "told"),
    [
        (normalizers.NFC(), unicodedata.normalize("NFD", "Beyoncé"), "Beyoncé", "1 golds that the tokenizer rewrites"),
        (normalizers.Lowercase(), "Paris", "paris", "1 golds that the tokenizer rewrites"),
        (normalizers.Replace("1", ""), "Q1", None, None),  # a letter is lost
        (normalizers.Replace("-", ""), "-3.2", None, None),  # another number
    ],
)
def test_golds_that_the_tokenizer_rewrites_are_counted_and_those_that_it_loses_dropped(
    own, tokenizer, normalizer, answer, written, told
):
    tokenizer.backend_tokenizer.normalizer = normalizer
    benchmark = own([{"answer": answer}, {}], [{}])
    benchmark.setup("fit")
    if written is None:
        assert benchmark.dropped["train"] == {"gold with unknown tokens": 1}
        assert remarks(benchmark) == "none"
    else:
        assert sorted(example.answer for example in benchmark.examples("train")) == sorted(["7", written])
        assert remarks(benchmark, "train") == told


def test_prompts_that_the_tokenizer_loses_letters_of_are_counted(own, tokenizer):
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("é", "")
    benchmark = own([{"question": "Beyoncé?"}, {}], [{}])
    benchmark.setup("fit")
    assert remarks(benchmark, "train") == "1 prompts with letters that the tokenizer lacks"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ messages[0]['content'] }}\n<think>\n", "the chat template opens the thinking itself"),
        ("<|user|>system: be brief\n{{ messages[0]['content'] }}\n", "the chat template writes a system message"),
        ("{{ messages[0]['content'] }}<eos>\n", "the chat template begins no turn of the model"),
    ],
)
def test_what_the_chat_template_does_by_itself_stands_below_the_table(own, tokenizer, template, told):
    tokenizer.chat_template = template
    benchmark = own([{}, {}], [{}], scenario="warm")
    benchmark.setup("fit")
    assert benchmark.summary().splitlines()[-1].startswith(told)
    assert benchmark.summary().count(told) == 1


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("think", "the tokenizer lacks a part of policy.thinking.start"),
        ("\n", "the tokenizer writes nothing for policy"),
    ],
)
def test_a_marker_that_the_tokenizer_cannot_write_is_told(own, tokenizer, lost, told):
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(lost, "")
    form = TokenFormat(tokenizer, Thinking(start="do think", end="</think>"))
    benchmark = own([{}], [{}]).bind(form)
    benchmark.setup("fit")
    assert benchmark.summary().splitlines()[-1].startswith(told)


def test_without_remarks_the_table_has_no_column_for_them(own):
    benchmark = own([{}], [{"question": "other"}])
    benchmark.setup("fit")
    assert benchmark.summary().splitlines()[0].split() == ["split", "records", "asked", "used", "dropped"]


def test_golds_longer_than_the_answer_budget_are_counted_and_warned_of(own, caplog):
    rows = [{"answer": "1" * n} for n in (2, 6, 7)]  # and two line breaks and an end: 5, 9, 10 tokens
    benchmark = own(rows, [{"question": "x"}], budget=8)
    with caplog.at_level(logging.WARNING, "jqlight"):
        benchmark.setup("fit")
    assert remarks(benchmark, "train") == "2 golds longer than sampler.max_answer_tokens"
    assert "sampler.max_answer_tokens: given 8, too few for 2 of the 3 gold answers of the train split" in caplog.text
    with pytest.raises(ConfigError, match=r"sampler\.max_answer_tokens: given 4, allowed is 5 or more.*train split"):
        own(rows, [{"question": "x"}], budget=4).setup("fit")
    own(rows, [{"question": "x"}], budget=10).setup("fit")


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"answer": " "}], {}, r"data: give other records.*1 records of the validation split.*1 empty gold"),
        ([{"answer": "\u200b\ufeff"}], {}, r"1 records of the validation split.*1 empty gold"),
        ([{"question": " \u200e"}], {}, r"1 records of the validation split.*1 empty question"),
        (
            [{"question": "1" * 99}],
            {"max_prompt_tokens": 40},
            r"data\.max_prompt_tokens: given 40, but .*validation0 has",
        ),
        ([], {}, r"validation\.jsonl: holds no records"),
    ],
)
def test_a_held_out_split_that_nothing_is_left_of_is_refused(own, rows, settings, message):
    with pytest.raises((ConfigError, DataError), match=message):
        own([{}], rows, **settings).setup("fit")
    with pytest.raises((ConfigError, DataError), match=message):
        own([{}], rows, **settings).setup("validate")


def test_training_without_validation_needs_no_validation_examples(own):
    trainer = SimpleNamespace(
        limit_val_batches=0, global_rank=0, world_size=1, limit_train_batches=1.0, lightning_module=None
    )
    benchmark = own([{}], [{"answer": " "}], trainer=trainer)
    benchmark.setup("fit")
    assert benchmark.summary().splitlines()[2].split()[:5] == ["validation", "1", "all", "0", "1"]
    with pytest.raises(ConfigError, match="validation split can be used"):
        benchmark.setup("validate")


def test_aliases_that_no_verifier_reads_are_counted(own):
    class Read(Own):
        verifiers = {**Own.verifiers, "f1_": token_f1}  # noqa: RUF012

    rows = [{"aliases": ["seven"]}, {"aliases": ["7"]}, {"aliases": None}, {}]
    for kind, expected in ((Own, "1 with aliases that no verifier reads"), (Read, "none")):
        benchmark = own(rows, [{"question": "x"}], kind)
        benchmark.setup("fit")
        assert remarks(benchmark, "train") == expected


def test_golds_that_the_official_rule_empties_are_counted(tmp_path, fixtures, token_format):
    rows = json.loads((fixtures / "hotpotqa" / "train.json").read_text("utf-8"))
    rows[0]["answer"], rows[1]["answer"], rows[2]["answer"] = "A", "!!!", "C++"
    (tmp_path / "train.json").write_text(json.dumps(rows))
    benchmark = HotpotQA(path=str(tmp_path)).bind(token_format)
    benchmark.check("train")
    assert remarks(benchmark, "train") == "2 golds normalise to nothing"


@pytest.mark.parametrize(
    ("aliases", "references"),
    [
        (None, ("7",)),
        ("seven", ("7", "seven")),
        (["a", "7"], ("7", "a")),
        ([], ("7",)),
        (["", " ", "\u200b", "a"], ("7", "a")),  # blank ones would accept a blank answer
    ],
)
def test_aliases_may_be_null_or_one_string(own, aliases, references):
    (example,) = own([{"aliases": aliases}]).examples("train")
    assert example.references == references


def test_plain_dictionaries_are_records_too(token_format):
    class Plain(Own):
        def read(self, split):
            return [{"id": "a", "question": "?", "answer": "7"}, {"id": "b", "question": "?"}]

    with pytest.raises(DataError, match=r"Plain record b: field 'answer' is missing"):
        Plain().bind(token_format).examples("train")


class Odd(Benchmark):
    given: object = None

    def item(self, record):
        return self.given(record) if callable(self.given) else self.given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Item(3, "7"), "must give strings for text, answer, rationale and references, given 3"),
        (Item("?", None), "must give strings for text, answer, rationale and references, given None"),
        (Item("?", "7", (7,)), "must give strings for text, answer, rationale and references, given 7"),
        (Item("?", "7", 7), "must give strings for text, answer, rationale and references, given 7"),
        (None, "must give an Item, given None"),
        (lambda r: Item(r["question"], r["answer"]["text"]), r"cannot read it \(TypeError: "),
        (lambda r: Item(r["question"], r["answer"].value), r"cannot read it \(AttributeError: "),
        (lambda r: Item(r["question"], r["aliases"]), "record train0: field 'aliases' is missing"),
    ],
)
def test_an_item_of_the_wrong_kind_names_file_and_record(own, given, message):
    benchmark = own([{}], kind=Odd)
    benchmark.given = given
    with pytest.raises(DataError, match=rf"train\.jsonl: record train0.*{message}|{message}"):
        benchmark.examples("train")
