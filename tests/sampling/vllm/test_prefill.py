"""Batches that do not fit: into one prefill batch, or into the key-value cache."""

import random

import pytest
from transformers import AutoConfig

from jqlight.sampling import Decoding, Request, SamplerConfig, Stop
from jqlight.sampling.memory import BLOCK_TOKENS, GIB, cache_token_bytes
from jqlight.sampling.vllm.engine import BATCHED_TOKENS, VLLMEngine

pytestmark = pytest.mark.engine


def test_a_prompt_at_the_border_of_a_prefill_batch_keeps_its_seed(vllm_engine):
    """Cutting such a prompt in two would rewind its generator, at which vLLM 0.32 stops on a CPU."""
    draw = random.Random(0)  # no shared prefixes, or the cache would shorten the prompts
    length = vllm_engine.max_model_len - 2
    count = 3 * BATCHED_TOKENS // length
    assert BATCHED_TOKENS % length, "one prompt must lie across the border"
    requests = [Request([draw.randrange(5, 90) for _ in range(length)], seed=i, max_tokens=2) for i in range(count)]
    together = vllm_engine.generate(requests, Stop(()), Decoding())
    alone = [vllm_engine.generate([request], Stop(()), Decoding())[0] for request in requests]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]


def test_rollouts_that_are_put_off_for_want_of_cache_are_the_same(vllm_engine, tiny_qwen3):
    """Each needs ten blocks in the end; 23 blocks hold two of them, so the others are dropped and recomputed."""
    block_bytes = BLOCK_TOKENS * cache_token_bytes(AutoConfig.from_pretrained(tiny_qwen3), "float32")
    narrow = SamplerConfig(max_num_seqs=6, memory_gib=(1 + 23) * block_bytes / GIB)
    engine = VLLMEngine(tiny_qwen3, "float32", vllm_engine.max_model_len, narrow)
    requests = [Request([5 + i] * 100, seed=i, max_tokens=190) for i in range(6)]
    put_off = []
    scheduler = engine._llm.llm_engine.engine_core.engine_core.scheduler
    preempt = scheduler._preempt_request
    scheduler._preempt_request = lambda *args, **kwargs: put_off.append(1) or preempt(*args, **kwargs)
    drawn = engine.generate(requests, Stop(()), Decoding())
    engine.close()
    assert put_off
    assert [c.token_ids for c in drawn] == [c.token_ids for c in vllm_engine.generate(requests, Stop(()), Decoding())]
