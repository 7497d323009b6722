"""What is vLLM's own: the tied head, the prefix cache, and living in somebody else's process."""

import gc
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from engine_reference import log_probs, shifted
from transformers import AutoModelForCausalLM

from jqlight.errors import EngineError
from jqlight.sampling import Decoding, Request, SamplerConfig, Stop
from jqlight.sampling.vllm.engine import VLLMEngine
from jqlight.sampling.vllm.process import assert_world

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(torch.cuda.is_available(), reason="these are about vLLM's CPU build"),
]
NEVER = Stop(())


def gap(engine, model, requests):
    """Largest difference between the log-probs of engine and model."""
    drawn = engine.generate(requests, NEVER, Decoding())
    expected = [log_probs(model, list(r.prompt_ids), c.token_ids) for r, c in zip(requests, drawn, strict=True)]
    return max(float((torch.tensor(c.logprobs) - e).abs().max()) for c, e in zip(drawn, expected, strict=True))


def test_without_repacking_a_tied_head_keeps_the_old_weights(vllm_engine, model, requests_, monkeypatch):
    original = {name: weight.clone() for name, weight in model.named_parameters()}
    shifted(model)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(VLLMEngine, "_repack_lm_head", lambda self: None)
            vllm_engine.sync(model.named_parameters())
        assert gap(vllm_engine, model, requests_) > 0.05
        vllm_engine.sync(model.named_parameters())
        assert gap(vllm_engine, model, requests_) < 1e-4
    finally:
        vllm_engine.sync(original.items())


def test_a_prefix_cache_that_is_not_reset_is_an_error(vllm_engine, model, monkeypatch):
    monkeypatch.setattr(vllm_engine._llm, "reset_prefix_cache", lambda: False)
    with pytest.raises(EngineError, match="prefix cache"):
        vllm_engine.sync(model.named_parameters())


def test_rollouts_of_a_prompt_share_it(vllm_engine):
    cached = []
    generate = vllm_engine._llm.generate

    def spy(*args, **kwargs):
        outputs = generate(*args, **kwargs)
        cached.extend(output.num_cached_tokens for output in outputs)
        return outputs

    vllm_engine._llm.generate = spy
    try:
        prompt = [5 + i % 90 for i in range(300)]
        vllm_engine.generate([Request(prompt, seed, 2) for seed in range(4)], NEVER, Decoding())
    finally:
        vllm_engine._llm.generate = generate
    assert cached[0] == 0
    assert min(cached[1:]) == 288  # nine whole blocks of 32 tokens


def test_text_is_made_only_where_a_stop_string_is_looked_for(vllm_engine):
    texts = []
    generate = vllm_engine._llm.generate

    def spy(*args, **kwargs):
        outputs = generate(*args, **kwargs)
        texts.append([output.outputs[0].text for output in outputs])
        return outputs

    vllm_engine._llm.generate = spy
    try:
        for stop in (Stop((1,)), Stop((1,), "never written")):
            vllm_engine.generate([Request([5, 6, 7], seed, 6) for seed in range(3)], stop, Decoding())
    finally:
        vllm_engine._llm.generate = generate
    assert texts[0] == ["", "", ""] and any(texts[1])


def test_start_and_close_leave_the_process_as_it_was(tiny_llama, vllm_engine, requests_):
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    environ, setter, threads = dict(os.environ), torch.set_num_threads, torch.get_num_threads()
    before = vllm_engine.generate(requests_[:2], NEVER, Decoding())

    engine = VLLMEngine(tiny_llama, "float32", 256, SamplerConfig(max_num_seqs=8))
    model = shifted(AutoModelForCausalLM.from_pretrained(tiny_llama).eval())
    engine.sync(model.named_parameters())
    assert gap(engine, model, [Request([7, 8, 9], seed, 20) for seed in range(4)]) < 1e-4
    engine.close()

    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    assert torch.set_num_threads is setter and torch.get_num_threads() == threads
    added = {name for name in os.environ if environ.get(name) != os.environ[name]}
    assert all(name.startswith("VLLM_") for name in added), added
    assert vllm_engine.generate(requests_[:2], NEVER, Decoding()) == before


def test_learned_positions_and_transposed_weights(tiny_gpt2):
    engine = VLLMEngine(tiny_gpt2, "float32", 256, SamplerConfig(max_num_seqs=8))
    model = shifted(AutoModelForCausalLM.from_pretrained(tiny_gpt2).eval())
    engine.sync(model.named_parameters())
    assert gap(engine, model, [Request([7, 8, 9] * (1 + seed), seed, 20) for seed in range(4)]) < 1e-4
    engine.close()


def test_worlds_must_agree(vllm_engine):
    assert torch.distributed.get_world_size() == 1  # the engine's doing
    assert_world(1)
    with pytest.raises(EngineError, match=r"1 process\(es\) but the trainer with 2.*setup\(\)"):
        assert_world(2)


def test_a_forgotten_engine_leaves_the_others_alone(tiny_llama, vllm_engine, requests_):
    before = vllm_engine.generate(requests_[:2], NEVER, Decoding())
    engine = VLLMEngine(tiny_llama, "float32", 256, SamplerConfig(max_num_seqs=8))
    del engine
    gc.collect()
    assert torch.distributed.is_initialized()
    assert vllm_engine.generate(requests_[:2], NEVER, Decoding()) == before


@pytest.mark.parametrize("dropped", ["model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"])
def test_an_incomplete_update_is_refused(tiny_llama, vllm_engine, dropped):
    engine = VLLMEngine(tiny_llama, "float32", 128, SamplerConfig(max_num_seqs=2))
    weights = dict(AutoModelForCausalLM.from_pretrained(tiny_llama).named_parameters())
    del weights[dropped]
    with pytest.raises(EngineError, match=f"missing in the update.*{re.escape(dropped)}"):
        engine.sync(weights.items())


def test_a_foreign_update_is_refused(tiny_llama, vllm_engine):
    engine = VLLMEngine(tiny_llama, "float32", 128, SamplerConfig(max_num_seqs=2))
    with pytest.raises(EngineError, match=r"does not take the policy's weights.*'typo'"):
        engine.sync({"model.typo.weight": torch.zeros(1)}.items())


def test_sync_is_silent(vllm_engine, model, capfd):
    vllm_engine.sync(model.named_parameters())
    assert capfd.readouterr() == ("", "")


def test_a_script_hears_nothing_and_groups_go_with_the_last_engine_that_made_them(tiny_qwen3):
    code = f"""
import torch
from jqlight.sampling import Decoding, Request, SamplerConfig, Stop
from jqlight.sampling.vllm.process import assert_world
from jqlight.sampling.vllm.engine import VLLMEngine
assert_world(2)
first, second = (VLLMEngine({tiny_qwen3!r}, "float32", 64, SamplerConfig(max_num_seqs=2)) for _ in range(2))
first.close()
print(len(second.generate([Request([5, 6], 1, 8)], Stop(()), Decoding())[0].token_ids))
print(torch.distributed.is_initialized())
second.close()
print(torch.distributed.is_initialized())
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
VLLMEngine({tiny_qwen3!r}, "float32", 64, SamplerConfig(max_num_seqs=2)).close()
print(torch.distributed.is_initialized())
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "8\nTrue\nFalse\nTrue\n"


def test_a_model_that_vllm_cannot_serve_names_the_way_on(tmp_path, tiny_qwen3):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "architectures": ["NoSuchModel"], "head_dim": 48}')
    with pytest.raises(EngineError, match=r"sampler.engine: vllm does not start.*set sampler.engine: transformers"):
        VLLMEngine(str(tmp_path), "float32", 128, SamplerConfig(max_num_seqs=1))
