import logging

import pytest
from enumeration import World, save_three_token_gpt2


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def three_token_gpt2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a GPT-2 with three tokens, whose every rationale and output can be listed."""
    return save_three_token_gpt2(tmp_path_factory.mktemp("tiny") / "three")


@pytest.fixture(scope="session")
def world(three_token_gpt2: str) -> World:
    """Gold output "aa<eos>": a separator of one token, the answer, the end. Five rationales."""
    return World(three_token_gpt2)


@pytest.fixture(scope="session")
def bare_world(three_token_gpt2: str) -> World:
    """Without a separator, so that outputs are short enough to list: 35 pairs of rationale and output."""
    return World(three_token_gpt2, separator="")
