"""Batches of prompts that do not fit into one prefill batch."""

import random

import pytest

from jqlight.sampling import Decoding, Request, Stop
from jqlight.sampling.vllm import BATCHED_TOKENS

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
