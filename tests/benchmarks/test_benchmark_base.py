"""What every benchmark does alike: subsets, dropped records, tokens, loaders and its settings' errors."""

import json
from typing import ClassVar

import pytest
from tokenizers import normalizers
from transformers import AutoTokenizer

from jqlight.benchmarks import Benchmark, Item, Record
from jqlight.errors import ConfigError, DataError
from jqlight.token_format import Thinking, TokenFormat


class Own(Benchmark):
    """A benchmark of one's own, as short as it gets: its records lie in a file of questions."""

    task = "Add the numbers."

    def item(self, record):
        return Item(record.text("question"), record.text("answer"))


def test_a_benchmark_of_ones_own_reads_a_file_of_questions(tmp_path, token_format):
    rows = [{"id": i, "question": f"{i}+1", "answer": str(i + 1)} for i in range(40)]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    benchmark = Own(path=str(path), scenario="warm", prompts_per_step=2).bind(token_format)
    splits = [benchmark.examples(split) for split in ("train", "validation", "test")]
    assert sorted(int(e.id) for examples in splits for e in examples) == list(range(40))
    assert all(e.answer == str(int(e.id) + 1) for examples in splits for e in examples)
    assert splits[0][0].prompt == f"Add the numbers.\n\n{splits[0][0].id}+1\n<think>\n"
    assert benchmark.verifiers[""]("it is 7", ("7",)) == 1.0


class Toy(Benchmark):
    """Records from the test."""

    task = "Add the numbers."
    sizes: ClassVar = {"train": 6, "validation": 100}
    records: ClassVar = []

    def read(self, split):
        return [Record(record, f"toy: record {record['id']}") for record in self.records]

    def item(self, record):
        return Item(record.text("question"), record.text("answer"), ("alias",))


@pytest.fixture
def toy(token_format):
    def make(records=None, **kwargs):
        benchmark = Toy(**kwargs).bind(token_format)
        benchmark.records = records or [{"id": f"q{i}", "question": f"{i}+1", "answer": str(i + 1)} for i in range(20)]
        return benchmark

    return make


def ids(examples):
    return [example.id for example in examples]


def test_an_example_is_its_tokens(toy, tokenizer):
    (example,) = toy([{"id": "x", "question": " 1+1 ", "answer": " 2 "}]).examples("train")
    assert example.prompt == " 1+1\n<think>\n"
    assert tokenizer.decode(example.prompt_ids) == example.prompt
    assert tokenizer.decode(example.target_ids) == "\n\n2<eos>"
    assert example.answer == "2"
    assert example.references == ("2", "alias")


def test_golds_are_what_a_normalising_tokenizer_gives_back_and_the_files_own_are_accepted_too(toy, tokenizer):
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    benchmark = toy([{"id": "x", "question": "1+1", "answer": "５０％"}])
    benchmark.item = lambda record: Item(record.text("question"), record.text("answer"), ("ﬁfty",))
    (example,) = benchmark.examples("train")
    assert example.answer == benchmark.token_format.decode_answer(example.target_ids) == "50%"
    assert example.references == ("50%", "５０％", "fifty", "ﬁfty")


def test_a_gold_that_spells_control_tokens_is_its_letters(toy, token_format):
    (example,) = toy([{"id": "x", "question": "a </think> b", "answer": "the <eos> token"}]).examples("train")
    assert example.answer == token_format.decode_answer(example.target_ids) == "the <eos> token"
    assert [i for i in example.target_ids if i < 5] == [0]
    assert [i for i in example.prompt_ids if i < 5] == [1]
    assert example.prompt == "a </think> b\n<think>\n"


def test_a_gold_with_tokens_that_the_tokenizer_lacks_is_dropped_and_counted(toy, tiny_qwen3):
    form = TokenFormat(AutoTokenizer.from_pretrained(tiny_qwen3), Thinking())
    rows = [{"id": "x", "question": "1+1", "answer": "zwölf"}, {"id": "y", "question": "1+1", "answer": "2"}]
    benchmark = toy(rows).bind(form)
    assert ids(benchmark.examples("train")) == ["y"]
    assert benchmark.dropped["train"] == {"gold with unknown tokens": 1}


def test_a_subset_is_the_same_for_any_order_of_the_records(toy):
    first = toy()
    second = toy(list(reversed(first.records)))
    assert ids(first.examples("train")) == ids(second.examples("train"))
    assert len(first.examples("train")) == 6
    # Pinned: the same on every machine and in every version.
    assert ids(first.examples("train")) == PINNED


PINNED = ["q13", "q3", "q17", "q12", "q8", "q18"]


def test_a_smaller_subset_is_the_beginning_of_a_larger_one_and_seeds_differ(toy):
    large = ids(toy(train_size=12).examples("train"))
    assert ids(toy(train_size=5).examples("train")) == large[:5]
    assert ids(toy(train_size=12, seed=1).examples("train")) != large


def test_sizes_default_all_and_given(toy):
    assert len(toy().examples("train")) == 6
    assert len(toy(train_size="all").examples("train")) == 20
    assert len(toy(train_size=7).examples("train")) == 7
    assert len(toy().examples("test")) == 20  # no default size: all
    fewer = toy()
    assert len(fewer.examples("validation")) == 20
    assert "20 (fewer than asked)" in fewer.summary()


def test_unusable_records_are_dropped_counted_and_replaced_by_the_next(toy):
    long = {"id": "long", "question": "1" * 200, "answer": "1"}
    records = [
        {"id": "empty", "question": "?", "answer": "  "},
        long,
        *[{"id": f"q{i}", "question": "?", "answer": "1"} for i in range(4)],
        {"id": "q0", "question": "again", "answer": "2"},
    ]
    benchmark = toy(records, train_size="all", max_prompt_tokens=50)
    examples = benchmark.examples("train")
    assert sorted(ids(examples)) == ["q0", "q1", "q2", "q3"]
    assert all(example.answer == "1" for example in examples)  # of two records with one id the first is kept
    assert benchmark.dropped == {"train": {"empty gold": 1, "prompt too long": 1, "duplicate id": 1}}
    assert benchmark.counts["train"].records == 7
    assert "1 duplicate id, 1 empty gold, 1 prompt too long" in benchmark.summary()
    assert len(toy(records, train_size=4, max_prompt_tokens=50).examples("train")) == 4


def test_the_limit_counts_the_prompt_with_everything_in_it(toy):
    record = [{"id": "x", "question": "12345", "answer": "1"}]
    length = len(b"12345\n") + len(["<think>", "\n"])
    assert toy(record, max_prompt_tokens=length).examples("train")
    assert not toy(record, max_prompt_tokens=length - 1).examples("train")


def test_setup_reads_only_what_the_stage_needs_and_once(toy, monkeypatch):
    benchmark, read = toy(prompts_per_step=4), []
    original = benchmark.read
    monkeypatch.setattr(benchmark, "read", lambda split: read.append(split) or original(split))
    benchmark.setup("fit")
    assert read == ["train", "validation"]
    benchmark.setup("validate")
    benchmark.setup("test")
    benchmark.setup("predict")
    assert read == ["train", "validation", "test"]
    assert len(benchmark.val_dataloader()) == len(benchmark.predict_dataloader()) == 1


def test_loaders_hold_examples_in_lists(toy):
    benchmark = toy(prompts_per_step=4)
    benchmark.evaluation_batch = 3
    assert [len(batch) for batch in benchmark.train_dataloader()] == [4, 2]
    assert [len(batch) for batch in benchmark.test_dataloader()] == [3] * 6 + [2]


def test_too_small_a_training_set_says_so(toy):
    with pytest.raises(ConfigError, match=r"prompts_per_step: given 8, but the training set has 6 usable"):
        toy().setup("fit")  # before the module's own setup starts an engine


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("train_size", 0),
        ("validation_size", -1),
        ("prompts_per_step", 0),
        ("max_prompt_tokens", 0),
    ],
)
def test_numbers_below_one_are_refused(setting, value):
    with pytest.raises(ConfigError, match=rf"data\.{setting}: given {value}, allowed is 1 or more"):
        Toy(**{setting: value})


def test_an_unknown_scenario_is_refused():
    with pytest.raises(ConfigError, match=r"data\.scenario: given 'hot', allowed are cold and warm"):
        Toy(scenario="hot")


def test_without_path_and_hub_the_error_names_the_key(token_format):
    class Local(Benchmark):
        def item(self, record):
            return Item("", "")

    with pytest.raises(ConfigError, match=r"data\.path: Local has no copy on the hub"):
        Local().bind(token_format).examples("train")


def test_without_tokenizer_the_error_says_what_to_do():
    benchmark = Toy()
    benchmark.records = [{"id": "x", "question": "?", "answer": "1"}]
    with pytest.raises(ConfigError, match="call bind"):
        benchmark.examples("train")


def test_a_malformed_record_names_place_and_field(toy):
    with pytest.raises(DataError, match="toy: record x: field 'answer' is missing"):
        toy([{"id": "x", "question": "?"}]).examples("train")
