"""Two processes count what one does, bit for bit, with uneven shares and with a rank that has nothing to count."""

import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

from jqlight.benchmarks import Example
from jqlight.benchmarks.evaluator import Evaluator
from jqlight.benchmarks.loaders import EvaluationLoader
from jqlight.metrics.verifiers import exact_match, substring_match, token_f1

WORKER = textwrap.dedent(
    """
    import json, sys
    import torch.distributed as dist
    from test_metrics_two_ranks import evaluate

    folder, rank = sys.argv[1], int(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = [evaluate(questions, rank, 2) for questions in json.load(open(f"{folder}/questions.json"))]
    json.dump(results, open(f"{folder}/{rank}.json", "w"))
    # A group that is left to the interpreter's exit can abort the process: its threads are still running.
    dist.barrier()
    dist.destroy_process_group()
    """
)


def evaluate(questions: list[dict], rank: int = 0, world: int = 1) -> dict:
    """Exact values of all metrics, and how many samples this rank saw."""
    evaluator = Evaluator({"": substring_match, "exact_": exact_match, "f1_": token_f1}, 4)
    for batch in EvaluationLoader(questions, 2, rank, world):
        examples = [Example(q["id"], "", (), q["gold"], (), (q["gold"],)) for q in batch]
        evaluator.update(examples, [q["answers"] for q in batch])
    values = {name: value.item().hex() for name, value in evaluator.compute().items()}
    return {"values": values, "rows": len(evaluator.rows())}


def test_two_ranks_give_the_same_bits_as_one(tmp_path):
    generator = random.Random(0)
    words = ["one", "two", "three", "one two", ""]
    cases = [
        [
            {"id": str(i), "gold": generator.choice(words[:3]), "answers": [generator.choice(words) for _ in range(6)]}
            for i in range(size)
        ]
        for size in (11, 1)
    ]
    (tmp_path / "questions.json").write_text(json.dumps(cases))
    (tmp_path / "worker.py").write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, str(tmp_path / "worker.py"), str(tmp_path)]
    processes = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for questions, one, two in zip(cases, first, second, strict=True):
        alone = evaluate(questions)
        assert one["values"] == two["values"] == alone["values"]
        assert one["rows"] + two["rows"] == alone["rows"] == 6 * len(questions)
    assert len(set(first[0]["values"].values())) > 4
