"""A GRPO step of jqlight against one of TRL's GRPOTrainer, alternated in one run: `make bench-trl`.

Both train the same 12.6 M parameter Qwen3 in float32 with AdamW on two prompts of 512 tokens with 16 rollouts of 64
sampled tokens, one optimizer step per batch, rewarded by the share of odd token ids, each in a process of its own that
waits while the other computes. A step is everything from one start of the trainer's loop to the next.

TRL 1.16 does not run on a CPU unchanged; these changes give it its best there:
- vLLM inside the process (``vllm_mode="colocate"``). TRL supports vLLM to 0.31; with 0.32's CPU build its first weight
  update stops with an AttributeError. `worker_trl.sync` replaces that one method by what jqlight's own engine does, and
  the engine is set to float32 and eager, which TRL has no setting for.
- TRL limits its output head to completion tokens on CUDA only; here it does so on the CPU too (``--full-head`` leaves
  it as shipped, which is slower).
- bf16 and gradient checkpointing, on by default, are off. Everything else is TRL's default, its importance-sampling
  correction with one more scoring pass included: that is what corrects its engine's log-probabilities. jqlight
  compares the same two log-probabilities without another pass.
- jqlight samples 56 tokens, forces one that ends the thinking, and samples 8 more in a second engine call.
"""

import argparse
import os
import statistics
from typing import Any

from perf.common import Timing, quiet, record
from perf.workers import WorkerClient
from perf.workload import Work, describe, make_model

PHASES = ("generate", "score", "forward_backward", "sync")


def summary(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the quiet steps of one trainer."""
    kept = [steps[i] for i in quiet(Timing(s["seconds"], s["foreign"]) for s in steps)]
    seconds = statistics.median(s["seconds"] for s in kept)
    splits = [split(s["split"]) for s in kept]
    parts = {phase: statistics.median(s.get(phase, 0.0) for s in splits) for phase in PHASES}
    return {
        "seconds": seconds,
        "split": {**parts, "other": seconds - sum(parts.values())},
        "peak_mib": max(s["peak_mib"] for s in steps),
        "step_mib": max(s["step_mib"] for s in steps),
        "quiet": f"{sum(s['foreign'] < 0.2 for s in steps)}/{len(steps)}",
        "all": [s["seconds"] for s in steps],
    }


def split(seconds: dict[str, float]) -> dict[str, float]:
    """One step's phases under the names of :data:`PHASES`; TRL's forward and backward is its step without the rest."""
    if "training_step" not in seconds:
        return seconds
    return {**seconds, "forward_backward": seconds["training_step"] - seconds["prepare"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="jqlight's GRPO step against TRL's")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--work", nargs=4, type=int, default=[512, 64, 16, 2], metavar=("P", "C", "M", "PROMPTS"))
    parser.add_argument("--micro", type=int, default=0, help="TRL's sequences per forward and backward; 0 for all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--full-head", action="store_true", help="TRL's head on prompt tokens too, as shipped on a CPU")
    options = parser.parse_args()
    os.environ |= {
        "OMP_NUM_THREADS": str(options.threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    work, model = Work(*options.work), make_model()
    micro = options.micro or work.prompts * work.rollouts
    total = options.warmup + options.steps
    common = [model, *map(str, options.work), "--steps", str(total)]
    head = ["--full-head"] if options.full_head else []
    workers = {
        "trl": WorkerClient("perf.worker_trl", *common, "--micro", str(micro), *head),
        "jqlight": WorkerClient("perf.worker_jqlight", *common),
    }
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for step in range(total):
        for name, worker in workers.items():
            answer = worker.step()
            if step >= options.warmup:
                taken[name].append(answer)
    for worker in workers.values():
        worker.close()
    ours, theirs = summary(taken["jqlight"]), summary(taken["trl"])
    record(
        "vs_trl",
        work=describe(work),
        ratio=theirs["seconds"] / ours["seconds"],
        step_memory_ratio=ours["step_mib"] / theirs["step_mib"],
        process_memory_ratio=ours["peak_mib"] / theirs["peak_mib"],
        jqlight=ours,
        trl=theirs | {"micro": micro, "compact_head": not options.full_head},
        threads=options.threads,
    )


if __name__ == "__main__":
    main()
