"""TwoHop's questions: what they ask, which split they belong to, and the gold answers made of them."""

import random
from collections import Counter
from itertools import islice

import pytest
from transformers import AutoTokenizer

from jqlight.benchmarks import twohop
from jqlight.benchmarks.twohop import ENTITIES, RELATIONS, SOURCES, TwoHop, questions, source_of, stream, with_noise
from jqlight.errors import ConfigError
from jqlight.hub import BUNDLED
from jqlight.token_format import Thinking, TokenFormat

SMALL = {"train_size": 40, "validation_size": 12, "test_size": 9}


@pytest.fixture(scope="module")
def plain_format() -> TokenFormat:
    """The bundled model's format: no start marker, nothing between thinking and answer."""
    return TokenFormat(AutoTokenizer.from_pretrained(BUNDLED["twohop"]), Thinking("", "</think>", ""))


@pytest.fixture
def benchmark(plain_format):
    return lambda **settings: TwoHop(**{**SMALL, **settings}).bind(plain_format)


def parse(text: str) -> tuple[list[tuple[str, ...]], tuple[str, str, str]]:
    """The facts and the (start, relation, relation) of a question, read from its text alone."""
    body, _, asked = text.partition(" ? ")
    facts = [tuple(fact.split()) for fact in body.removesuffix(" .").split(" . ")]
    start, first, second = asked.split()
    return facts, (start, first, second)


def reachable(facts: list[tuple[str, ...]], start: str, first: str, second: str) -> list[str]:
    """All ends of chains start -first-> bridge -second-> end."""
    bridges = [o for s, r, o in facts if (s, r) == (start, first)]
    return [o for bridge in bridges for s, r, o in facts if (s, r) == (bridge, second)]


def answer_of(prompt: str) -> str:
    """The one answer, found from the question's text."""
    facts, asked = parse(prompt)
    (answer,) = reachable(facts, *asked)
    return answer


def test_first_question_is_the_one_that_was_published():
    question = questions("validation", 1)[0]
    assert question.text == "e21 r0 e10 . e10 r1 e28 . e10 r2 e27 . e21 r3 e2 . e2 r2 e25 . ? e21 r0 r2"
    assert question.rationale == "e21 r0 e10 . e10 r2 e27"
    assert question.answer == "e27"


@pytest.mark.parametrize("source", SOURCES)
def test_a_longer_list_begins_with_the_shorter(source):
    assert questions(source, 30)[:10] == questions(source, 10)


@pytest.mark.parametrize("question", questions("train", 200)[::10], ids=lambda q: q.text[-8:])
def test_question_has_one_answer_and_its_rationale_leads_there(question):
    facts, asked = parse(question.text)
    assert len(facts) == 5
    assert reachable(facts, *asked) == [question.answer]
    assert [tuple(hop.split()) for hop in question.rationale.split(" . ")] == list(question.chain)
    assert set(question.chain) <= set(facts)


def test_no_part_of_a_question_can_be_left_out():
    for question in questions("test", 300):
        facts, (start, first, second) = parse(question.text)
        (_, _, bridge), _ = question.chain
        assert len({o for s, _, o in facts if s == start}) == 2, "the first relation is not needed"
        assert len({o for s, _, o in facts if s == bridge}) == 2, "the second relation is not needed"
        assert {o for s, r, o in facts if r == second and s != bridge} - {bridge}, "the bridge is not needed"
        assert all(not reachable([f for f in facts if f != hop], start, first, second) for hop in question.chain)


def test_answers_and_places_of_the_chain_are_even():
    drawn = questions("train", 3000)
    assert {q.answer for q in drawn} == set(ENTITIES)
    assert {r for q in drawn for _, r, _ in q.facts} == set(RELATIONS)
    places = Counter(q.facts.index(q.chain[1]) for q in drawn)
    assert all(abs(places[i] / 3000 - 0.2) < 0.04 for i in range(5))
    assert max(Counter(q.answer for q in drawn).values()) / 3000 < 0.06


def test_no_chain_is_shared_between_splits_or_with_what_the_model_was_trained_on():
    chains = {source: {q.chain for q in questions(source, 2000)} for source in SOURCES}
    assert all(len(found) == 2000 for found in chains.values()), "a chain comes twice in a split"
    assert all(not chains[a] & chains[b] for a in SOURCES for b in SOURCES if a != b)


def test_endless_base_questions_belong_to_no_split_of_the_benchmark():
    assert {source_of(q) for q in islice(stream("base"), 2000)} == {"base"}


def test_split_depends_on_the_chain_alone():
    question = questions("test", 1)[0]
    shuffled = twohop.Question(tuple(random.Random(1).sample(question.facts, 5)), question.chain)
    assert shuffled.facts != question.facts
    assert source_of(shuffled) == "test"


@pytest.mark.parametrize("share, replaced", [(0.0, 0), (0.3, 300), (0.5, 500), (1.0, 1000)])
def test_noise_replaces_exactly_its_share_by_other_entities(share, replaced):
    answers = [q.answer for q in questions("train", 1000)]
    noisy = with_noise(answers, share)
    assert sum(a != b for a, b in zip(answers, noisy, strict=True)) == replaced
    assert set(noisy) <= set(ENTITIES)
    assert noisy == with_noise(answers, share)


def test_more_noise_replaces_the_same_answers_and_more():
    answers = [q.answer for q in questions("train", 500)]
    some, more = with_noise(answers, 0.2), with_noise(answers, 0.4)
    assert all(m == s for a, s, m in zip(answers, some, more, strict=True) if s != a)


def test_sizes_ids_and_tokens(benchmark):
    data = benchmark()
    for split, size in (("train", 40), ("validation", 12), ("test", 9)):
        examples = data.examples(split)
        assert sorted(e.id for e in examples) == sorted(f"{split}-{i}" for i in range(size))
        assert {len(e.prompt_ids) for e in examples} == {24}
        assert {len(e.target_ids) for e in examples} == {4}
    assert data.dropped == {"train": {}, "validation": {}, "test": {}}


def test_sizes_where_none_is_given(plain_format):
    data = TwoHop().bind(plain_format)
    assert [len(data.examples(split)) for split in ("train", "validation", "test")] == [4096, 64, 128]


def test_gold_answer_round_trips_in_the_models_tokens(benchmark, plain_format):
    example = benchmark().examples("validation")[0]
    entity = answer_of(example.prompt)
    assert example.answer == f"[[ {entity} ]]"
    assert example.references == (example.answer,)
    assert plain_format.decode(example.target_ids) == f"{example.answer} <eos>"
    assert plain_format.decode_answer(example.target_ids) == example.answer


def test_seed_orders_the_questions_and_leaves_them_the_same(benchmark):
    one, other = benchmark(seed=1).examples("train"), benchmark(seed=2).examples("train")
    assert [e.id for e in one] != [e.id for e in other]
    assert {e.id: e for e in one} == {e.id: e for e in other}


def test_answer_format_sets_the_length_of_the_gold_answer(benchmark):
    example = benchmark(answer_format="ans {answer}").examples("test")[0]
    assert example.answer == f"ans {answer_of(example.prompt)}"
    assert len(example.target_ids) == 3


def test_last_relation_says_which_of_several_answer_formats_is_the_questions(benchmark):
    formats = ["ans {answer}", ": {answer}", "[[ {answer} ]]"]
    for example in benchmark(answer_format=" | ".join(formats)).examples("validation"):
        own = formats[int(example.prompt.split()[-1].removeprefix("r")) % 3]
        assert example.answer == own.format(answer=answer_of(example.prompt))


def test_noise_is_in_the_training_answers_only(benchmark):
    data = benchmark(label_noise=0.25)
    clean = benchmark()
    differing = {
        split: sum(a.answer != b.answer for a, b in zip(data.examples(split), clean.examples(split), strict=True))
        for split in ("train", "validation", "test")
    }
    assert differing == {"train": 10, "validation": 0, "test": 0}


def test_verifiers_take_the_answer_inside_a_text_or_alone(benchmark):
    data = benchmark()
    gold = data.examples("test")[0].references
    wordy = f"so {gold[0]}"
    assert data.verifiers[""](wordy, gold) == 1
    assert data.verifiers["exact_"](wordy, gold) == 0
    assert data.verifiers["exact_"](gold[0], gold) == 1
    assert data.verifiers[""](gold[0].replace("[[", "", 1), gold) == 0


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"answer_format": "[[ ]]"}, r"data\.answer_format: given '\[\[ \]\]', allowed is a text with \{answer\}"),
        ({"answer_format": "{answer} {answer}"}, r"data\.answer_format"),
        ({"answer_format": "{answer} | ans"}, r"data\.answer_format: given '\{answer\} \| ans'"),
        ({"label_noise": 1.5}, r"data\.label_noise: given 1\.5, allowed is a share from 0 to 1"),
        ({"label_noise": -0.1}, r"data\.label_noise"),
        ({"path": "questions.json"}, r"data\.path: given 'questions\.json'"),
        ({"scenario": "warm"}, r"data\.scenario: given 'warm'.*ans \{answer\}"),
        ({"train_size": "all"}, r"data\.train_size: given 'all', allowed is 1 to 100000"),
        ({"test_size": 100_001}, r"data\.test_size: given 100001"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TwoHop(**settings)


def test_answer_format_with_a_word_that_the_model_does_not_know_is_refused(benchmark):
    with pytest.raises(ConfigError, match=r"data\.answer_format: given 'it is \{answer\}'"):
        benchmark(answer_format="{answer} | it is {answer}").examples("train")
