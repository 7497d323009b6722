"""What it costs to be able to undo a step: looking at the result and keeping a copy of it, behind an AdamW step.

    python -m perf.undo        # 1 minute, 4 GiB

The bundled model and SmolLM2's shape with random weights, float32; a step with and one without it run in turn. Seconds
are the processor's, which others' work on the machine stretches less than those of a clock.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

import jqlight
from jqlight.estimators.all_or_nothing import AllOrNothing
from perf.common import record

SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    tie_word_embeddings=True,
)
BUNDLED = Path(jqlight.__file__).parent / "assets" / "twohop"


def measure(name: str, model: PreTrainedModel, repetitions: int, threads: int) -> None:
    """Record the seconds of the optimizer's step alone and with what undoing it takes."""
    optimizer, kept = torch.optim.AdamW(model.parameters(), lr=1e-6), AllOrNothing("stop")
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    kept.begin(model, optimizer)

    def undoable() -> None:
        optimizer.step()
        assert kept._spoilt() is None  # of what AllOrNothing.step does, the parts that cost
        kept._keep()

    seconds: dict[str, list[float]] = {"step": [], "undoable": []}
    for _ in range(1 + repetitions):
        for kind, run in (("step", optimizer.step), ("undoable", undoable)):
            begin = time.process_time()
            run()
            seconds[kind].append(time.process_time() - begin)
    step, whole = (statistics.median(each[1:]) for each in seconds.values())  # the first ones take memory
    parameters = sum(p.numel() for p in model.parameters())
    record(
        "undo",
        model=name,
        parameters=parameters,
        step=step,
        added=whole - step,
        mib=parameters * 12 / 2**20,
        all=seconds,
        threads=threads,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="what being able to undo a step costs")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bundled = AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32)
    measure("twohop", bundled, options.repetitions, options.threads)
    measure("SmolLM2's shape", LlamaForCausalLM(SMOLLM2), options.repetitions, options.threads)


if __name__ == "__main__":
    main()
