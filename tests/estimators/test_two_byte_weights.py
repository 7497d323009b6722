"""Weights of two bytes are trained with a warning that names the way out."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from letters import make, train

from jqlight.estimators import GARL
from jqlight.policy import LoRA, Policy


@pytest.mark.parametrize(
    ("settings", "warned"),
    [({"dtype": "bfloat16"}, True), ({"dtype": "float32"}, False), ({"dtype": "bfloat16", "lora": LoRA(r=1)}, False)],
)
def test_full_training_of_two_byte_weights_names_the_way_out(
    settings: dict,
    warned: bool,
    three_token_gpt2: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sentences: list[str] = []
    monkeypatch.setattr(
        logging.getLogger("jqlight.estimators.module"), "warning", lambda text, *values: sentences.append(text % values)
    )
    estimator = make(GARL, three_token_gpt2)
    estimator.policy = Policy(replace(estimator.policy.config, **settings))
    train(estimator, 1, tmp_path)
    assert len(sentences) == warned
    if warned:
        assert "given bfloat16" in sentences[0]
        assert "give policy.dtype: float32, trainer.precision: bf16-mixed and sampler.dtype: bfloat16" in sentences[0]
