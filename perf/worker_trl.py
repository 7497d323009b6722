"""TRL's worker of vs_trl: its GRPOTrainer with vLLM in its own process, made to work on a CPU; see vs_trl."""

import argparse
import functools
from typing import Any

import torch
import trl.generation.vllm_generation as generation
import trl.trainer.utils as trainer_utils
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from perf.workers import WorkerLoop
from perf.workload import Shape, Work, odd_share, words


class Pause(TrainerCallback):
    """Waits before every step."""

    def __init__(self, loop: WorkerLoop) -> None:
        self.loop = loop

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.loop.pause()


def sync(self: Any) -> None:
    """``VLLMGeneration.sync_weights`` for vLLM on a CPU: reload in place, then renew the tied head's packed copy."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    tensors = [(name, tensor) for name, tensor in self._iter_named_params() if name != "lm_head.weight"]
    update = {"weights_iterator": iter(tensors), "is_checkpoint_format": True}
    self.llm.collective_rpc("reload_weights", kwargs=update)
    for module in self.llm.llm_engine.model_executor.driver_worker.model_runner.model.modules():
        if isinstance(module, ParallelLMHead):
            dispatch_cpu_unquantized_gemm(module, remove_weight=False)
    self.llm.reset_prefix_cache()


def patch(compact_head: bool) -> None:
    """Make colocated vLLM run in float32 on a CPU, and TRL's head run on completion tokens alone as it does on CUDA."""
    generation.LLM = functools.partial(generation.LLM, dtype="float32", enforce_eager=True)
    generation.VLLMGeneration.sync_weights = sync
    if compact_head:
        trainer_utils._use_triton = lambda device: True


def configure(work: Work, micro: int, steps: int) -> GRPOConfig:
    """TRL's settings: its defaults, but for float32, no gradient checkpointing and a fixed length."""
    sequences = work.prompts * work.rollouts
    return GRPOConfig(
        output_dir="runs/trl",
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=sequences // micro,
        num_generations=work.rollouts,
        max_completion_length=work.tokens,
        max_steps=steps,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_max_model_length=work.prompt + work.tokens,
        generation_kwargs={"ignore_eos": True},
        temperature=1.0,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=0,
    )


def watch(loop: WorkerLoop, trainer: GRPOTrainer, work: Work) -> None:
    """Set the clocks of the split, and check the length of what was generated."""

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        tokens = sum(map(len, completion_ids))
        if tokens != work.sampled:
            raise RuntimeError(f"{tokens} tokens were sampled in a step, {work.sampled} belong to it")
        return [odd_share(ids) for ids in completion_ids]

    trainer.reward_funcs[0] = reward
    loop.watch(trainer.vllm_generation, "generate", "generate")
    loop.watch(trainer.vllm_generation, "sync_weights", "sync")
    forward = "_get_per_token_logps_and_entropies"
    loop.watch(trainer, forward, lambda: "forward" if torch.is_grad_enabled() else "score")
    loop.watch(trainer, "training_step", "training_step")
    loop.watch(trainer, "_prepare_inputs", "prepare")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("work", nargs=4, type=int)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--micro", type=int, required=True)
    parser.add_argument("--full-head", action="store_true")
    options = parser.parse_args()
    loop, work = WorkerLoop(), Work(*options.work)
    patch(not options.full_head)
    prompts = [{"prompt": words(work.prompt, Shape().vocab, i)} for i in range((options.steps + 2) * work.prompts)]
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32),
        args=configure(work, options.micro, options.steps + 1),
        train_dataset=Dataset.from_list(prompts),
        reward_funcs=lambda completion_ids, **_: [0.0] * len(completion_ids),
        processing_class=AutoTokenizer.from_pretrained(options.model),
        callbacks=[Pause(loop)],
    )
    watch(loop, trainer, work)
    trainer.train()


if __name__ == "__main__":
    main()
