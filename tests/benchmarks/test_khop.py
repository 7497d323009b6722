"""KHop: its graph and chains, which split they belong to, the verifiers of chains, and the bundled model."""

import importlib.util
import json
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jqlight.benchmarks.evaluator import Evaluator
from jqlight.benchmarks.khop import (
    ENTITIES,
    GRAPH,
    RELATIONS,
    Chain,
    KHop,
    chains,
    is_chain,
    is_right,
    source_of,
)
from jqlight.errors import ConfigError
from jqlight.hub import BUNDLED
from jqlight.token_format import Thinking, TokenFormat

ROOT = Path(__file__).parents[2]
FOLDER = BUNDLED["khop"]
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def plain_format() -> TokenFormat:
    return TokenFormat(AutoTokenizer.from_pretrained(FOLDER), Thinking("", "</think>", ""))


def follow(start: str, relations: tuple[str, ...]) -> str:
    """Where the relations lead, edge by edge."""
    for relation in relations:
        start = GRAPH[start, relation]
    return start


def test_first_chains_are_the_ones_that_were_published():
    first = [chain.rationale for chain in islice(chains("validation", 3), 2)]
    assert first == ["e0 r0 e20 r2 e1 r3 e19", "e0 r2 e63 r0 e40 r3 e36"]


def test_every_relation_is_a_permutation_and_no_two_lead_to_the_same_entity():
    assert len(GRAPH) == len(ENTITIES) * len(RELATIONS)
    for relation in RELATIONS:
        assert {GRAPH[entity, relation] for entity in ENTITIES} == set(ENTITIES)
    for entity in ENTITIES:
        assert len({entity, *(GRAPH[entity, relation] for relation in RELATIONS)}) == 5


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_each_chain_is_in_one_split_and_its_rationale_leads_to_its_end(hops):
    found = {source: list(chains(source, hops)) for source in ("base", *SPLITS)}
    everything = [chain for split in found.values() for chain in split]
    assert len(set(everything)) == len(everything) == 64 * 4**hops
    for source, size in (("base", 3 / 8), ("train", 3 / 8), ("validation", 1 / 8), ("test", 1 / 8)):
        assert len(found[source]) / len(everything) == pytest.approx(size, abs=0.3 / 2**hops)
        assert all(source_of(chain) == source for chain in found[source])
    for chain in everything[::7]:
        assert follow(chain.start, chain.relations) == chain.end == chain.rationale.split()[-1]
        assert is_chain(chain.rationale, (chain.text, f"ans {chain.end}")) == 1
        assert is_right(f"{chain.rationale} </think>", (chain.text, f"ans {chain.end}")) == 1


def test_sizes_ids_and_tokens(plain_format):
    data = KHop(necessity=True).bind(plain_format)
    assert [len(data.examples(split)) for split in SPLITS] == [1500, 256, 256]
    ids = [example.id for split in SPLITS for example in data.examples(split)]
    assert len(set(ids)) == len(ids)
    example = data.examples("test")[0]
    question = Chain(example.prompt.split()[1], tuple(example.prompt.split()[2:]))
    assert (example.rationale, example.answer) == (question.rationale, f"ans {question.end}")
    assert plain_format.decode(example.target_ids) == f"{example.answer} <eos>"
    assert len(example.prompt_ids) == 5
    assert data.examples("test") == KHop(test_size="all").bind(plain_format).examples("test")[:256]


def test_another_way_to_the_answer_is_a_chain_and_not_the_right_one():
    ways: dict[tuple[str, str], list[Chain]] = {}
    for chain in chains("test", 2):
        ways.setdefault((chain.start, chain.end), []).append(chain)
    one, other = next(found for found in ways.values() if len(found) > 1)
    references = (one.text, f"ans {one.end}")
    assert (is_chain(other.rationale, references), is_right(other.rationale, references)) == (1, 0)
    assert (is_chain(one.rationale, references), is_right(one.rationale, references)) == (1, 1)


@pytest.fixture
def asked() -> tuple[str, str]:
    chain = Chain("e3", ("r1", "r0"))
    return chain.text, f"ans {chain.end}"


@pytest.mark.parametrize(
    "change",
    [
        lambda words: [],
        lambda words: ["</think>"],
        lambda words: words[:-1],
        lambda words: words[:3],
        lambda words: words[-1:],
        lambda words: words[2:],
        lambda words: [*words[:2], "e9", *words[3:]],
        lambda words: [*words[:1], "r9", *words[2:]],
        lambda words: [*words, "r0", GRAPH[words[-1], "r0"]],
        lambda words: [word.replace("e", "f") for word in words],
        lambda words: [*words, "</think>", "</think>"],
    ],
)
def test_what_is_no_chain_to_the_answer(asked, change):
    words = change(Chain("e3", ("r1", "r0")).rationale.split())
    assert is_chain(" ".join(words), asked) == 0
    assert is_right(" ".join(words), asked) == 0


def test_shares_of_chains_are_metrics_beside_the_answers(plain_format):
    data = KHop(validation_size=2).bind(plain_format)
    one, other = data.examples("validation")
    evaluator = Evaluator(data.verifiers, 2, data.normalise, data.rationale_verifiers)
    evaluator.update([one, other], [[one.answer, "ans"]] * 2, [[f"{one.rationale} </think>", "e1 r0"]] * 2)
    assert {name: float(evaluator.compute()[name]) for name in ("chain", "right_chain")} == {
        "chain": 0.25,
        "right_chain": 0.25,
    }
    assert [row["verdicts"]["chain"] for row in evaluator.rows()] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"hops": 0}, r"data\.hops: given 0, allowed is 1 to 4"),
        ({"hops": 5}, r"data\.hops: given 5"),
        ({"path": "chains.json"}, r"data\.path: given 'chains\.json'"),
        ({"scenario": "warm"}, r"data\.scenario: given 'warm'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        KHop(**settings)


def test_the_models_files_are_small(model):
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 2**20
    assert {file.suffix for file in FOLDER.iterdir()} == {".json", ".safetensors"}
    assert model.config.num_hidden_layers == 2
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("hops, right", [(1, 0.34), (2, 0.114), (3, 0.039), (4, 0.013)])
def test_the_model_writes_walks_that_are_seldom_right_and_answers_with_their_end(model, plain_format, hops, right):
    questions = list(islice(chains("test", hops), 64))
    tokenizer = plain_format.tokenizer
    prompts = torch.tensor([tokenizer.encode(chain.text) for chain in questions]).repeat_interleave(16, 0)
    torch.manual_seed(0)
    settings = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": 2 * hops + 6, "do_sample": True}
    texts = tokenizer.batch_decode(model.generate(prompts, **settings)[:, hops + 2 :])
    walks = [text.partition(" </think> ")[::2] for text in texts]
    asked = [chain for chain in questions for _ in range(16)]
    good = [
        is_chain(walk, (chain.text, answer.partition(" <eos>")[0])) and len(walk.split()) == 2 * hops + 1
        for (walk, answer), chain in zip(walks, asked, strict=True)
    ]
    assert sum(good) / len(good) > 0.98, "not a walk of the right length with its end as the answer"
    found = [walk == chain.rationale for (walk, _), chain in zip(walks, asked, strict=True)]
    assert sum(found) / len(found) == pytest.approx(right, abs=right / 2)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    spec = importlib.util.spec_from_file_location("train_khop_base", ROOT / "scripts" / "train_khop_base.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("train_twohop_base", None)


def test_training_texts_are_walks_behind_questions_of_the_base_split(script, plain_format):
    tokenizer = script.build_tokenizer(script.WORDS)
    assert tokenizer.get_vocab() == plain_format.tokenizer.get_vocab()
    for ids, labels in islice(script.batches(tokenizer), 3):
        for row, label in zip(ids, labels, strict=True):
            question = tokenizer.decode(row[label == -100])
            walk, _, answer = tokenizer.decode(row[label != -100]).partition(" </think> ")
            assert source_of(Chain(question.split()[1], tuple(question.split()[2:]))) == "base"
            assert is_chain(walk, (question, answer.removesuffix(" <eos>"))) == 1


def test_two_steps_of_the_shipped_config(shell, workplace):
    settings = ("--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--data.validation_size", "4")
    assert shell("fit", "--config", ROOT / "conf" / "khop.yaml", *settings, "--run_dir", "run") == 0, shell.err
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    last = {key: value for row in rows for key, value in row.items()}
    assert last["step"] == 2
    assert {"val/chain", "val/right_chain", "val/exact_pass_at_1", "val/gain", "val/necessity_empty"} <= set(last)
