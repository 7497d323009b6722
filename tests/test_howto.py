"""The code in docs/howto does what the text says."""

import json
import math
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from enumeration import World, groups, save_three_token_gpt2
from transformers import AutoTokenizer

from jqlight.estimators import GARL
from jqlight.token_format import Thinking, TokenFormat

PAGES = Path(__file__).parents[1] / "docs" / "howto"
TEXT = (PAGES / "own-data.md").read_text()


def code_of(page: str) -> str:
    return re.search(r"```python\n(.*?)```", (PAGES / page).read_text(), re.DOTALL).group(1)


def test_the_benchmark_of_ones_own_is_short_and_reads_the_files_as_shown(tmp_path, tiny_qwen3):
    source = code_of("own-data.md")
    assert len(source.splitlines()) <= 40
    record = re.search(r"^    (\{.*\})$", TEXT, re.MULTILINE).group(1)
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text(record + "\n" + json.dumps({**json.loads(record), "id": "q2"}) + "\n")
    names: dict = {}
    exec(source, names)

    token_format = TokenFormat(AutoTokenizer.from_pretrained(tiny_qwen3), Thinking())
    benchmark = names["MyQuestions"](path=str(tmp_path), prompts_per_step=1).bind(token_format)
    examples = benchmark.examples("train")
    assert sorted(example.id for example in examples) == ["q1", "q2"]
    assert examples[0].answer == "Scheldt"
    assert examples[0].prompt.startswith("Which river flows through Ghent?")
    assert token_format.decode_answer(examples[0].target_ids) == "Scheldt"


def test_a_single_file_is_divided_as_the_text_says(tmp_path, tiny_qwen3):
    source = code_of("own-data.md")
    names: dict = {}
    exec(source, names)
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "question": "Q?", "answer": "A"}) + "\n" for i in range(1000)))
    token_format = TokenFormat(AutoTokenizer.from_pretrained(tiny_qwen3), Thinking())
    benchmark = names["MyQuestions"](path=str(path)).bind(token_format)
    ids = [{e.id for e in benchmark.examples(split)} for split in ("train", "validation", "test")]
    assert [len(part) for part in ids] == [len(part - set().union(*(o for o in ids if o is not part))) for part in ids]
    assert sum(map(len, ids)) == 1000
    assert 750 < len(ids[0]) < 850


def test_the_estimator_of_ones_own_follows_the_bound_that_it_claims(tmp_path):
    source = code_of("own-estimator.md")
    assert len(source.splitlines()) <= 16
    names: dict = {}
    exec(source, names)
    world = World(save_three_token_gpt2(tmp_path))
    triples = list(product(range(len(world.rationales)), repeat=3))
    steps = groups(world, product(world.rationales, repeat=3), names["VIMCO"](**world.settings(), rollouts=3))
    mean = torch.tensor([math.prod(world.priors[i] for i in t) for t in triples], dtype=torch.float64) @ steps

    log_p = torch.stack([world.log_prior(z) for z in world.rationales])
    log_w = torch.stack([world.log_weight(z) for z in world.rationales])
    index = torch.tensor(triples)
    bound = (log_p[index].sum(-1).exp() * log_w[index].exp().mean(-1).log()).sum()
    expected = world.gradient(-bound)
    assert ((mean - expected).norm() / expected.norm()).item() < 1e-10


@pytest.mark.filterwarnings("ignore")
def test_the_script_trains_and_validates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    source = code_of("script.md")
    names: dict = {}
    exec(source, names)
    assert names["trainer"].global_step == 2
    logged = names["trainer"].logged_metrics
    assert {"val/maj_at_4", "val/exact_pass_at_1"} <= logged.keys()
    assert "val/maj_at_4" in capsys.readouterr().out
    assert names["model"].run_seed == 0 and names["model"].benchmark is names["data"]


@pytest.mark.parametrize("q", [0.0, 0.75])
def test_the_loss_of_a_loop_of_ones_own_has_the_gradient_of_the_step(tmp_path, q):
    names: dict = {}
    exec(re.findall(r"```python\n(.*?)```", (PAGES / "script.md").read_text(), re.DOTALL)[1], names)
    world = World(save_three_token_gpt2(tmp_path))
    group = [world.rationales[i] for i in (0, 1, -1)]
    (step,) = groups(world, [group], GARL(**world.settings(), q=q, rollouts=3))
    log_z = torch.stack([world.log_prior(z) for z in group])
    log_w = torch.stack([world.log_weight(z) for z in group])
    loss = world.gradient(names["garl_loss"](log_z, log_w, q))
    assert ((step - loss).norm() / loss.norm()).item() < 1e-10


def test_a_script_does_not_show_what_libraries_advertise(tmp_path):
    source = "from lightning import Trainer\nimport jqlight.estimators\nTrainer(accelerator='cpu')"
    run = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not re.search("Tip|tensorboardX", run.stdout + run.stderr)


@pytest.mark.filterwarnings("ignore")
def test_the_script_of_the_readme_runs(tmp_path, tiny_qwen3, monkeypatch):
    readme = (PAGES.parents[1] / "README.md").read_text()
    source = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
    assert len(source.splitlines()) <= 10
    river = {"question": "Where?", "answer": "Ghent", "context": [["A", ["B."]]], "supporting_facts": [["A", 0]]}
    for split in ("train", "validation"):
        (tmp_path / f"{split}.json").write_text(json.dumps([{"_id": f"{split}{i}", **river} for i in range(2)]))
    changes = {
        "Qwen/Qwen3-0.6B": tiny_qwen3,
        'SamplerConfig("vllm", max_thinking_tokens=512)': 'SamplerConfig("transformers", 4, 4)',
        "max_steps=200": "max_steps=1, accelerator='cpu', limit_val_batches=0",
        "q=0.5": "q=0.5, rollouts=2",
        'path="data/hotpotqa"': "path='.', prompts_per_step=1, max_prompt_tokens=200",
    }
    for given, smaller in changes.items():
        assert given in source
        source = source.replace(given, smaller)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(source.replace("Trainer(", "trainer = Trainer(").replace(").fit(", "); trainer.fit("), names)
    assert names["trainer"].global_step == 1
