import pytest
import torch
from engine_reference import log_probs, shifted
from transformers import AutoModelForCausalLM, AutoTokenizer

from jqlight.errors import EngineError
from jqlight.sampling import Decoding, Request, SamplerConfig, Stop, transformers
from jqlight.sampling.transformers import TransformersEngine, draw
from jqlight.token_format import Thinking, TokenFormat

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def drawn(uniforms, decoding):
    rows = LOGITS.expand(len(uniforms), -1)
    return draw(rows, torch.tensor(uniforms, dtype=torch.float64), decoding).tolist()


def test_draw_inverts_the_distribution():
    assert drawn([0.0, 0.4999, 0.5001, 0.7999, 0.8001, 0.9499, 0.9501, 0.9999], Decoding()) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_draw_with_temperature():
    # p^2 renormalised: 0.25, 0.09, 0.0225, 0.0025 over 0.365
    cold = Decoding(temperature=0.5)
    assert drawn([0.6848, 0.6850, 0.9314, 0.9316, 0.9930, 0.9932], cold) == [0, 1, 1, 2, 2, 3]
    assert drawn([0.99], Decoding(temperature=0)) == [0]


def test_draw_with_top_k():
    assert drawn([0.6249, 0.6251, 0.9999], Decoding(top_k=2)) == [0, 1, 1]
    assert drawn([0.9999], Decoding(top_k=100)) == [3]


def test_draw_with_top_p_keeps_the_token_that_crosses_the_border():
    assert drawn([0.6249, 0.6251, 0.9999], Decoding(top_p=0.6)) == [0, 1, 1]
    assert drawn([0.9999], Decoding(top_p=0.4)) == [0]


def test_top_p_applies_to_what_top_k_left():
    # top-k 2 leaves 0.625 and 0.375, of which the first alone is more than 0.6
    assert drawn([0.9999], Decoding(top_k=2, top_p=0.6)) == [0]


def test_draw_does_not_lose_the_tail_of_a_large_vocabulary():
    tokens = 200_000
    logits = torch.zeros(3, tokens)
    ids = draw(logits, torch.tensor([0.0, 0.5, 1 - 1e-9], dtype=torch.float64), Decoding())
    assert ids.tolist() == [0, tokens // 2, tokens - 1]


@pytest.mark.parametrize("fixture", ["tiny_llama", "tiny_gpt2"])
def test_other_architectures(fixture, request):
    path = request.getfixturevalue(fixture)
    token_format = TokenFormat(AutoTokenizer.from_pretrained(path), Thinking(start=""))
    engine = TransformersEngine(path, "float32", 200, SamplerConfig(max_num_seqs=3), token_format)
    model = shifted(AutoModelForCausalLM.from_pretrained(path).eval())
    engine.sync(model.named_parameters())
    requests = [Request([5 + i] * (1 + 7 * i), seed=i, max_tokens=12) for i in range(7)]
    for asked, got in zip(requests, engine.generate(requests, Stop(()), Decoding()), strict=True):
        expected = log_probs(model, list(asked.prompt_ids), got.token_ids)
        torch.testing.assert_close(torch.tensor(got.logprobs), expected, atol=1e-4, rtol=0)


def test_at_most_max_num_seqs_rows_at_once(tiny_qwen3, token_format, transformers_engine, requests_):
    narrow = TransformersEngine(tiny_qwen3, "float32", 512, SamplerConfig(max_num_seqs=5), token_format)
    widths = []
    narrow.model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(kwargs["attention_mask"].shape[0]), with_kwargs=True
    )
    wide = transformers_engine.generate(requests_, Stop(()), Decoding())
    assert [c.token_ids for c in narrow.generate(requests_, Stop(()), Decoding())] == [c.token_ids for c in wide]
    assert max(widths) == 5


def test_each_distinct_prompt_runs_through_the_model_once(tiny_qwen3, token_format):
    engine = TransformersEngine(tiny_qwen3, "float32", 512, SamplerConfig(), token_format)
    rows = []
    engine.model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    engine.generate([Request([9, 8, 7], seed, 2) for seed in range(6)], Stop(()), Decoding())
    assert rows == [(1, 3), (6, 1)]


def test_rows_that_have_ended_leave_the_batch(tiny_qwen3, token_format):
    engine = TransformersEngine(tiny_qwen3, "float32", 512, SamplerConfig(), token_format)
    rows = []
    engine.model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    engine.generate([Request([9, 8, 7], seed, seed + 1) for seed in range(4)], Stop(()), Decoding())
    assert rows == [1, 3, 2, 1]


def test_an_incomplete_or_foreign_update_is_refused(tiny_qwen3, token_format):
    engine = TransformersEngine(tiny_qwen3, "float32", 512, SamplerConfig(), token_format)
    weights = {name: weight.clone() for name, weight in engine.model.named_parameters()}
    with pytest.raises(EngineError, match=r"no weight model\.typo"):
        engine.sync({"model.typo": torch.zeros(1)}.items())
    weights.pop("model.norm.weight")
    with pytest.raises(EngineError, match=r"missing.*model\.norm\.weight"):
        engine.sync(weights.items())


def test_batches_are_cut_to_the_free_memory(transformers_engine, requests_, monkeypatch):
    batch, sizes = transformers._Batch, []
    monkeypatch.setattr(transformers, "_Batch", lambda model, chunk: sizes.append(len(chunk)) or batch(model, chunk))
    drawn, first = [], []
    for free_kib in (1 << 20, 1500, 1):
        monkeypatch.setattr(transformers, "free_memory", lambda device, free=free_kib: free << 10)
        drawn.append([c.token_ids for c in transformers_engine.generate(requests_, Stop(()), Decoding())])
        first.append(sizes[0])
        sizes.clear()
    assert first[0] == len(requests_) > first[1] > first[2] == 1
    assert drawn[0] == drawn[1] == drawn[2]
