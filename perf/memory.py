"""One HotpotQA step of a model of Qwen3-0.6B's shape on the CPU, its memory against the line that `fit` prints.

`python -m perf.memory` makes the model (random weights, 2.2 GiB in models/), runs `jqlight fit` on the few HotpotQA
records of the test-suite with few and short rollouts, and compares the highest resident memory of that process with the
sum of the printed line. It stops before anything is loaded where less memory is free than it takes.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from jqlight.machine import GIB, free_memory, usual_device
from perf.common import record
from perf.workload import Qwen3Shape, make_model

ROOT = Path(__file__).parent.parent
IMPORTS_GIB = 1.0
"""Of torch, transformers and vLLM themselves, which no line can know."""
NEEDED_GIB = 12.0


def printed(line: str) -> dict[str, float]:
    """GiB by purpose, of the lines that `fit` prints as one."""
    found = {name.strip(): float(size) for name, size in re.findall(r"([a-z ]+) ([\d.e-]+)(?:,|;| \(| of|$)", line)}
    checkpointed = re.search(r"\(([\d.e-]+) with checkpointing", line)
    return found | {"checkpointed": float(checkpointed[1]) if checkpointed else 0.0}


def arguments(model: str, data: Path, folder: str) -> list[str]:
    """Of `jqlight fit`: one step of two prompts with four rollouts each, plain SGD, which keeps no state."""
    given: dict[str, Any] = {
        "model.policy.name_or_path": model,
        "model.policy.thinking.start": "",
        "model.policy.thinking.end": "<end>",
        "model.policy.thinking.separator": "",
        "model.rollouts": 4,
        "model.sampler.max_thinking_tokens": 24,
        "model.sampler.max_answer_tokens": 8,
        "model.sampler.max_num_seqs": 8,
        "data.path": data,
        "data.scenario": "cold",
        "data.prompts_per_step": 2,
        "data.max_prompt_tokens": 512,
        "optimizer": "torch.optim.SGD",
        "optimizer.lr": 1e-6,
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 1,
        "trainer.limit_val_batches": 0,
        "trainer.logger": "false",
        "run_dir": f"{folder}/run",
    }
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


def main() -> int:
    parser = argparse.ArgumentParser(description="memory of one step of a 0.6B model against the printed line")
    parser.add_argument("--data", type=Path, default=ROOT / "tests" / "fixtures" / "hotpotqa")
    parser.add_argument("--layers", type=int, default=Qwen3Shape().layers)
    options = parser.parse_args()
    needed = NEEDED_GIB * options.layers / Qwen3Shape().layers + 2
    if (free := free_memory(usual_device()) / GIB) < needed:
        print(f"free {free:.1f} GiB, needed are {needed:.1f}: not run", file=sys.stderr)
        return 1
    model = str(Path(make_model(Qwen3Shape(layers=options.layers))).resolve())
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jqlight", "fit", "--config", str(ROOT / "conf" / "hotpotqa.yaml")]
        process = subprocess.Popen(
            [*command, *arguments(model, options.data, folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None, "it is a pipe"
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    three = re.search(r"^memory in GiB:.*\n.*\n.*$", told, re.MULTILINE)
    if status or not three:
        print(told[-3000:], file=sys.stderr)
        return 1
    plan = printed(three[0].replace("\n", ";"))
    # Activations of one whole group at the longest lengths; the copy that undoes a step is the process's own here.
    total = sum(size for name, size in plan.items() if name not in ("free", "checkpointed"))
    peak = usage.ru_maxrss * 1024 / GIB
    record(
        "memory", layers=options.layers, plan=plan, plan_gib=total, peak_gib=peak, without_imports=peak - IMPORTS_GIB
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
