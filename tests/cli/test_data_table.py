"""``jqlight fit`` on each benchmark in both scenarios prints and logs what became of the records."""

from pathlib import Path

import pytest
import yaml

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.mark.parametrize(("benchmark", "kept"), [("HotpotQA", 4), ("MuSiQue", 3), ("FinQA", 6)])
@pytest.mark.parametrize("scenario", ["cold", "warm"])
def test_fit_trains_on_each_benchmark_and_tells_what_it_read(shell, workplace, tiny_qwen3, benchmark, kept, scenario):
    content = {
        "model": {
            "class_path": "jqlight.estimators.GARL",
            "init_args": {
                "q": 0.75,
                "rollouts": 2,
                "samples": 2,
                "policy": {"name_or_path": tiny_qwen3},
                "sampler": {"engine": "transformers", "max_thinking_tokens": 2, "max_answer_tokens": 14},
            },
        },
        "data": {
            "class_path": f"jqlight.benchmarks.{benchmark}",
            "init_args": {
                "path": str(FIXTURES / benchmark.lower()),
                "scenario": scenario,
                "prompts_per_step": 2,
                "max_prompt_tokens": 1000,
            },
        },
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}},
        "trainer": {"accelerator": "cpu", "max_steps": 1, "enable_checkpointing": False, "limit_val_batches": 1},
    }
    (workplace / "own.yaml").write_text(yaml.safe_dump(content))
    assert shell("fit", "--config", "own.yaml") == 0, shell.err
    logged = (workplace / "runs/own/artifacts/data.txt").read_text()
    assert logged in shell.out
    assert [line.split()[0] for line in logged.splitlines()] == ["split", "train", "validation"]
    _, train, _ = logged.splitlines()
    assert train.split()[1] == train.split()[3] == str(kept)
    assert "(fewer than asked)" in train
