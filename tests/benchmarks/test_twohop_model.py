"""The bundled model: solves TwoHop in its own format, and starts cold in the benchmark's."""

import importlib.util
import random
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jqlight.benchmarks.twohop import TwoHop, questions, stream
from jqlight.hub import BUNDLED
from jqlight.token_format import Thinking, TokenFormat

FOLDER = BUNDLED["twohop"]
SCRIPT = Path(__file__).parents[2] / "scripts" / "train_twohop_base.py"
QUESTIONS = 32


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def records():
    """Held-out questions with their rationale, as the benchmark reads them."""
    data = TwoHop(validation_size=QUESTIONS).bind(
        TokenFormat(AutoTokenizer.from_pretrained(FOLDER), Thinking("", "</think>", ""))
    )
    return data, list(data.read("validation"))


def sample(model, prompts: torch.Tensor, tokens: int, **settings) -> torch.Tensor:
    written = model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=tokens, **settings)
    return written[:, prompts.shape[1] :]


def test_files_are_small_and_hold_a_float32_model_with_tied_embeddings(model):
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 4 * 2**20
    assert {file.suffix for file in FOLDER.iterdir()} == {".json", ".safetensors"}
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert 300_000 < model.num_parameters() < 400_000


def test_tokenizer_and_generation_config_agree_on_the_end(model, records):
    token_format = records[0].token_format
    tokenizer = token_format.tokenizer
    assert len(tokenizer) == model.config.vocab_size == 45
    assert model.generation_config.eos_token_id == model.config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert len(token_format.end_ids) == 1
    text = "e3 r1 e7 . e7 r2 e12 </think> ans e12 [[ [[ : e12 : ]] ]]"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_solves_held_out_questions_in_its_own_format(model, records):
    data, found = records
    prompts = torch.tensor([data.prompt_ids(record["question"]) for record in found])
    written = sample(model, prompts, 11, do_sample=False)
    expected = [f"{r['rationale']} </think> ans {r['answer']} <eos>" for r in found]
    solved = [data.token_format.decode(ids.tolist()) == text for ids, text in zip(written, expected, strict=True)]
    assert len(solved) == QUESTIONS
    assert sum(solved) / QUESTIONS >= 0.9


def test_needs_its_rationale(model, records):
    """Forced to answer at once, the model does not find the answer; so a question needs both hops."""
    data, found = records
    token_format = data.token_format
    ans = token_format.tokenizer.convert_tokens_to_ids("ans")
    prompts = torch.tensor([[*data.prompt_ids(r["question"]), *token_format.end_ids, ans] for r in found])
    written = sample(model, prompts, 1, do_sample=False)
    right = [token_format.decode(ids.tolist()) == r["answer"] for ids, r in zip(written, found, strict=True)]
    assert sum(right) / QUESTIONS < 0.3


def test_rationales_differ_and_some_are_wrong(model, records):
    """Else M samples would be one sample, and there would be nothing to choose between."""
    data, found = records
    prompts = torch.tensor([data.prompt_ids(r["question"]) for r in found])
    torch.manual_seed(0)
    written = sample(model, prompts.repeat_interleave(16, 0), 8, do_sample=True).view(QUESTIONS, 16, -1)
    texts = [[data.token_format.decode(ids.tolist()) for ids in group] for group in written]
    right = [text == f"{r['rationale']} </think>" for group, r in zip(texts, found, strict=True) for text in group]
    assert 0.5 < sum(right) / len(right) < 0.8
    assert min(len(set(group)) for group in texts) > 1


def test_starts_cold_in_the_benchmarks_format(model, records):
    """The gold answer behind the right rationale has a log-probability under -15, in every question."""
    data, found = records
    rationales = {r["id"]: data.token_format.tokenizer.encode(f"{r['rationale']} </think>") for r in found}
    for example in data.examples("validation"):
        given = [*example.prompt_ids, *rationales[example.id]]
        ids = torch.tensor([[*given, *example.target_ids]])
        with torch.no_grad():
            log_p = model(input_ids=ids).logits[0, len(given) - 1 : -1].double().log_softmax(-1)
        log_w = log_p.gather(1, torch.tensor(example.target_ids)[:, None]).sum().item()
        assert log_w < -15


def test_never_writes_the_benchmarks_brackets(model, records):
    """Sixteen samples a question: none has a bracket in it, so every vote is lost."""
    data, found = records
    prompts = torch.tensor([data.prompt_ids(r["question"]) for r in found])
    torch.manual_seed(0)
    written = sample(model, prompts.repeat_interleave(16, 0), 20, do_sample=True)
    brackets = torch.tensor(data.token_format.tokenizer.convert_tokens_to_ids(["[[", "]]", ":"]))
    assert not torch.isin(written, brackets).any()


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("train_twohop_base", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("recall_steps", [0, 5])
def test_training_texts_come_from_the_base_split_and_have_no_brackets(script, monkeypatch, records, recall_steps):
    asked = []
    monkeypatch.setattr(script, "stream", lambda source: asked.append(source) or stream(source))
    monkeypatch.setattr(script, "RECALL_STEPS", recall_steps)
    tokenizer = script.build_tokenizer()
    batches = list(islice(script.batches(tokenizer), 5))
    assert asked == ["base"]
    seen = set(torch.cat([ids.flatten() for ids, _ in batches]).tolist())
    assert not seen & set(tokenizer.convert_tokens_to_ids(["[[", "]]", ":", "<unk>"]))
    assert tokenizer.get_vocab() == records[0].token_format.tokenizer.get_vocab()


def test_training_rationales_slip_at_their_rate_and_stay_on_the_shown_facts(script):
    rng = random.Random(0)
    drawn = questions("base", 4000)
    attempts = [script.attempt(question, rng) for question in drawn]
    assert all(set(chain) <= set(q.facts) for chain, q in zip(attempts, drawn, strict=True))
    assert all(first[0] == q.chain[0][0] and first[2] == second[0] for (first, second), q in zip(attempts, drawn))
    first_right = [chain[0] == q.chain[0] for chain, q in zip(attempts, drawn, strict=True)]
    both_right = [chain == q.chain for chain, q in zip(attempts, drawn, strict=True)]
    assert abs(sum(first_right) / 4000 - 0.8) < 0.02
    assert abs(sum(both_right) / 4000 - 0.64) < 0.025


def test_every_label_can_be_told_from_the_question(script, monkeypatch):
    """Recall labels the last entity of a fact alone; the other stage labels the whole solution."""
    tokenizer = script.build_tokenizer()
    monkeypatch.setattr(script, "RECALL_STEPS", 1)
    (recalled, recall_labels), (solved, labels) = islice(script.batches(tokenizer), 2)
    text = tokenizer.decode(recalled[0])
    facts = set(text.partition(" ? ")[0].removesuffix(" .").split(" . "))
    again = text.partition(" ? ")[2].removesuffix(" .").split(" . ")
    assert set(again) == facts and len(again) == 5
    assert tokenizer.decode(recall_labels[0][recall_labels[0] >= 0]).split() == [f.split()[2] for f in again]
    assert tokenizer.decode(solved[0]).endswith(tokenizer.decode(labels[0][labels[0] >= 0]))
    assert (labels[0] >= 0).sum() == 11
