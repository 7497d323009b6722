"""One engine of each kind for all tests of the package."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from jqlight.sampling import Engine, Request, SamplerConfig
from jqlight.sampling.transformers import TransformersEngine
from jqlight.sampling.vllm.engine import VLLMEngine
from jqlight.token_format import Thinking, TokenFormat

MAX_MODEL_LEN = 512


@pytest.fixture(scope="session")
def token_format(tiny_qwen3: str) -> TokenFormat:
    return TokenFormat(AutoTokenizer.from_pretrained(tiny_qwen3), Thinking(start="<think>"))


@pytest.fixture(scope="session")
def vllm_engine(tiny_qwen3: str) -> VLLMEngine:
    return VLLMEngine(tiny_qwen3, "float32", MAX_MODEL_LEN, SamplerConfig(max_num_seqs=64))


@pytest.fixture(scope="session")
def transformers_engine(tiny_qwen3: str, token_format: TokenFormat) -> TransformersEngine:
    return TransformersEngine(tiny_qwen3, "float32", MAX_MODEL_LEN, SamplerConfig(max_num_seqs=64), token_format)


@pytest.fixture(params=["vllm", "transformers"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(f"{request.param}_engine")


@pytest.fixture
def model(tiny_qwen3: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_qwen3).eval()


@pytest.fixture(scope="session")
def requests_(token_format: TokenFormat) -> list[Request]:
    """Twelve requests on three prompts of unequal length, with unequal budgets."""
    texts = ["Who?", "What is the capital of A?", "The longest prompt of all: " + "is it? " * 40]
    prompts = [token_format.encode_prompt(text) for text in texts]
    return [Request(prompts[i % 3], seed=100 + i, max_tokens=10 + 4 * i) for i in range(12)]
