"""Generated mistakes of every kind that jqlight reads; each must end well or as one sentence.

    python scripts/fuzz.py [--inputs 10000] [--seed 0] [KIND ...]

``tests/test_fuzz.py`` runs some hundreds of the same inputs. Here each has ten seconds, and what ends in a traceback
is printed with the seed that makes it again.
"""

import argparse
import contextlib
import faulthandler
import io
import json
import math
import os
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from jqlight.benchmarks import FinQA, HotpotQA, MuSiQue
from jqlight.cli.build import parse
from jqlight.cli.predictions import read_predictions
from jqlight.errors import JQLightError
from jqlight.names import inert
from jqlight.sampling import Decoding, SamplerConfig
from jqlight.sweep.file import read_sweep
from jqlight.tracking.checkpoints import checkpoint_step
from jqlight.tracking.journal import read_record
from jqlight.tracking.mlflow import recorded_store
from jqlight.tracking.run_folder import find_run_folder, release
from jqlight.tracking.run_names import check_experiment, check_name

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 10

TEXTS = (
    "",
    " ",
    "x",
    "null",
    "nan",
    "..",
    "../../x",
    "a/b",
    "a\nb",
    "\x00",
    "\x1b[2J",
    "\u202eabc",
    "\ud800",
    "x" * 5000,
)
TEXTS += (
    "${no.such}",
    "${oc.env:NO}",
    "{answer",
    "%s%n",
    "<b>|`$",
    "日本",
    "1e999",
    "0x10",
    "[1, 2",
    "{a: 1}",
    "!!python/x y",
)
NUMBERS = (0, 1, -1, 2, 0.5, 1.5, -0.5, 1e38, 1e-320, 2**31, 2**32, 2**64, 10**30, math.inf, -math.inf, math.nan)
KEYS = [
    "model.q",
    "model.rollouts",
    "model.samples",
    "model.baseline",
    "model.max_grad_norm",
    "model.scale",
    "model.seed",
    "model.policy",
    "model.policy.dtype",
    "model.policy.thinking.end",
    "model.sampler.engine",
    "model.sampler.max_thinking_tokens",
    "model.sampler.evaluation.top_p",
    "model.sampler.evaluation.temperature",
    "model.sampler.memory_gib",
    "data.path",
    "data.scenario",
    "data.train_size",
    "data.prompts_per_step",
    "data.max_prompt_tokens",
    "data.answer_format",
    "data.seed",
    "model",
    "data",
    "optimizer",
    "optimizer.lr",
    "optimizer.betas",
    "optimizer.eps",
    "optimizer.fused",
    "lr_scheduler",
    "lr_scheduler.gamma",
    "seed_everything",
    "run_name",
    "run_dir",
    "experiment_name",
    "ckpt_path",
    "trainer.max_steps",
    "trainer.max_epochs",
    "trainer.val_check_interval",
    "trainer.devices",
    "trainer.strategy",
    "trainer.callbacks",
    "trainer.logger",
    "trainer.precision",
    "trainer.max_time",
    "trainer.plugins",
    "trainer",
]
KEYS += ["model.init_args", "model.sampler", "model.sampler.evaluation", "model.policy.thinking", "model.policy.lora"]
KEYS += ["model.policy.lora.alpha", "checkpoint", "checkpoint.every_minutes", "base", "trainer.limit_train_batches"]
KEYS += ["trainer.gradient_clip_val", "trainer.callbacks+"]
CLASSES = ("GARL", "GARLL", "os.system", "subprocess.Popen", ".x", "a..b", "torch.optim.SGD", "no.such.Thing", "GRPO")
CLASSES += ("jqlight.estimators.GARLL", "jqlight.benchmark.TwoHop", "jqlight.estimators.Estimator", "EarlyStopping")
CLASSES += ("lightning.pytorch.callbacks.EarlyStoping", "StepLRR", "torch.utils.data.DataLoader")


def value(rng: random.Random, depth: int = 2) -> Any:
    """Something that a file may hold where something else is meant."""
    kind = rng.randrange(7 if depth else 5)
    if kind < 2:
        return rng.choice(TEXTS)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind == 4:
        return rng.choice((None, True, False))
    if kind == 5:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    keys = ("class_path", "init_args", *TEXTS[:8])
    return {rng.choice(keys): value(rng, depth - 1) for _ in range(rng.randrange(4))}


def mutated(rng: random.Random, content: Any) -> Any:
    """``content`` with one of its parts, at any depth, replaced, left out or doubled."""
    if isinstance(content, dict) and content and rng.random() < 0.8:
        key = rng.choice(list(content))
        changed = {**content, key: mutated(rng, content[key])}
        if rng.random() < 0.15:
            del changed[key]
        elif rng.random() < 0.1:
            changed[str(value(rng, 0))] = value(rng)
        return changed
    if isinstance(content, list) and content and rng.random() < 0.8:
        place = rng.randrange(len(content))
        return [*content[:place], mutated(rng, content[place]), *content[place + rng.choice((0, 1, 1, 1)) :]]
    return value(rng)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """``data`` cut off, with bytes changed, or in another encoding."""
    kind = rng.randrange(5)
    if kind == 0:
        return data[: rng.randrange(len(data) + 1)]
    if kind == 1:
        return rng.randbytes(rng.randrange(200))
    if kind == 2:
        return data.decode(errors="replace").encode(rng.choice(("utf-16", "utf-8-sig", "utf-32")))
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 8) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def file_of(rng: random.Random, path: Path, content: Any, dump: Callable[[Any], str]) -> Path:
    """A file of ``content``, one in five of them damaged."""
    data = dump(content).encode(errors="surrogatepass")
    path.write_bytes(damaged(rng, data) if rng.random() < 0.2 else data)
    return path


# -- kinds of input --------------------------------------------------------------------------------------------------


def command_line(rng: random.Random, folder: Path) -> None:
    """The settings of ``jqlight fit`` with some that cannot be."""
    words = ["--config", str(ROOT / "conf" / "quickstart.yaml")]
    for _ in range(rng.randrange(1, 3)):
        key = rng.choice(KEYS)
        key = key if rng.random() < 0.9 else key[:-1] + rng.choice("xyz.=")
        given = rng.choice(CLASSES) if rng.random() < 0.2 else value(rng)
        text = given if isinstance(given, str) else json.dumps(given)
        words += [f"--{key}={text}"] if rng.random() < 0.8 else [f"--{key}", text]
    parse(words)


def config_file(rng: random.Random, folder: Path) -> None:
    """The quickstart's config with a part that is something else, or a file with broken bytes."""
    content = yaml.safe_load((ROOT / "conf" / "quickstart.yaml").read_text())
    path = file_of(rng, folder / "c.yaml", mutated(rng, content), lambda c: yaml.safe_dump(c, allow_unicode=True))
    parse(["--config", str(path)])


def setting(rng: random.Random, folder: Path) -> None:
    """A config file with one setting of any name, a group's too, that holds anything."""
    content = rng.choice(CLASSES) if rng.random() < 0.1 else value(rng)
    for part in reversed(rng.choice(KEYS).split(".")):
        content = {part: content}
    for section in ("model", "data", "optimizer", "lr_scheduler"):
        if isinstance(content.get(section), dict) and "init_args" not in content[section]:
            content[section] = {"init_args": content[section]}
    if rng.random() < 0.2:
        content["base"] = value(rng)
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(content), errors="surrogatepass")
    parse(["--config", str(ROOT / "conf" / "quickstart.yaml"), "--config", str(path)])


def record(rng: random.Random, folder: Path) -> None:
    """The ``run.json`` of a run."""
    content = mutated(rng, RECORD) if rng.random() < 0.9 else RECORD
    file_of(rng, folder / "run.json", content, json.dumps)
    read_record(folder)
    recorded_store(folder)


def names(rng: random.Random, folder: Path) -> None:
    """Names of runs, experiments and folders."""
    name = "".join(
        rng.choice(("a", "/", ".", " ", "\\", "\n", "é", "\u202e", "\x00", "日", "-")) for _ in range(rng.randrange(12))
    )
    name = rng.choice((name, name * 30, rng.choice(TEXTS)))
    kind = rng.randrange(3)
    if kind == 0:
        check_experiment("experiment_name", name)
    elif kind == 1:
        check_name("run_name", name)
        find_run_folder("fit", None, name, None)
        assert all(path.parent == Path("runs") for path in Path("runs").iterdir())
    else:
        inert(name).encode("utf-8")


def decoding(rng: random.Random, folder: Path) -> None:
    """Sampling values."""
    numbers = [rng.choice(NUMBERS) for _ in range(3)]
    evaluation = Decoding(temperature=numbers[0], top_p=numbers[1], top_k=numbers[2])  # type: ignore[arg-type]
    SamplerConfig(evaluation=evaluation)


RECORD = {
    "run_id": "1",
    "experiment_name": "e",
    "run_name": "r",
    "tracking_uri": "sqlite:////x/mlflow.db",
    "params": {},
}
RECORD |= {"folder": "/x", "status": "FINISHED", "tags": {"q": "1"}, "start_time": 1.5, "end_time": 2.5}
RECORD |= {"uploaded": {"tags": {}, "params": ["q"], "metrics_bytes": 7, "artifacts": {}, "tables": []}}
HOTPOT = {
    "_id": "a1",
    "question": "Who?",
    "answer": "Ann",
    "context": [["T", ["Ann wrote it."]]],
    "supporting_facts": [["T", 0]],
}
MUSIQUE = {"id": "m1", "question": "q?", "answer": "a", "answer_aliases": ["b"], "answerable": True}
MUSIQUE |= {"paragraphs": [{"idx": 0, "title": "t", "paragraph_text": "p", "is_supporting": True}]}
FINQA = {"id": "f1", "pre_text": ["Rose."], "post_text": ["End."], "table": [["", "2008"], ["sales", "100"]]}
FINQA |= {"qa": {"question": "growth?", "answer": "20%", "exe_ans": 0.2, "program": "add(1, 2)", "gold_inds": {}}}


def records(rng: random.Random, folder: Path) -> None:
    """Data files of the three benchmarks."""
    benchmark, record = rng.choice(((HotpotQA, HOTPOT), (MuSiQue, MUSIQUE), (FinQA, FINQA)))
    content = mutated(rng, [record, record])
    rows = rng.random() < 0.5 and isinstance(content, list)
    dump = (lambda c: "\n".join(map(json.dumps, c))) if rows else json.dumps
    path = file_of(rng, folder / ("train.jsonl" if rows else "train.json"), content, dump)
    data = benchmark(path=str(path))
    for read in data.read("train"):
        data.item(read)


def predictions(rng: random.Random, folder: Path) -> None:
    """Files of predictions."""
    row = {"id": "a", "prompt": "p", "references": ["x"], "rationales": ["r"], "answers": ["x"]}
    rows = [mutated(rng, row) if rng.random() < 0.5 else row for _ in range(3)]
    read_predictions(file_of(rng, folder / "p.jsonl", rows, lambda c: "\n".join(map(json.dumps, c))))


SWEEP = {"base": str(ROOT / "conf" / "quickstart.yaml"), "experiment": "x", "grid": {"q": [0.0, 0.5, {"splice": 0.05}]}}
SWEEP |= {
    "points": [{"estimator": "GARL"}, {"estimator": "GRPO", "seed": [0, 1]}],
    "exclude": [{"q": 0.5}],
    "test": True,
}
SWEEP |= {"overrides": {"trainer.max_steps": 3}, "include": [{"estimator": "RLOO"}], "name": "s", "description": "d"}


def sweep(rng: random.Random, folder: Path) -> None:
    """Sweep files."""
    made = read_sweep(
        file_of(rng, folder / "s.yaml", mutated(rng, SWEEP), lambda c: yaml.safe_dump(c, allow_unicode=True))
    )
    assert all(point.name.strip(".") and "/" not in point.name for point in made.points)


def checkpoint(rng: random.Random, folder: Path) -> None:
    """Checkpoints that are cut off, damaged, or hold something else."""
    whole = {"state_dict": {"w": torch.zeros(2)}, "global_step": 3, "hyper_parameters": {"q": 0.5}, "epoch": 0}
    content = whole if rng.random() < 0.5 else mutated(rng, whole)
    path = folder / "last.ckpt"
    torch.save(content, path)
    if rng.random() < 0.8:
        path.write_bytes(damaged(rng, path.read_bytes()))
    checkpoint_step(path)


KINDS: dict[str, tuple[Callable[[random.Random, Path], None], float]] = {
    "names": (names, 0.18),
    "decoding": (decoding, 0.1),
    "records": (records, 0.2),
    "predictions": (predictions, 0.12),
    "sweep": (sweep, 0.12),
    "checkpoint": (checkpoint, 0.06),
    "command_line": (command_line, 0.06),
    "config_file": (config_file, 0.04),
    "setting": (setting, 0.06),
    "record": (record, 0.06),
}
"""Name -> what makes and reads one input, and its share of the inputs."""


def outcome(kind: str, rng: random.Random, folder: Path) -> str:
    """How one input ended: ``ok`` or ``sentence``.

    Raises:
        Exception: whatever is no error of jqlight's.
    """
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            KINDS[kind][0](rng, folder)
        return "ok"
    except JQLightError as error:
        assert str(error).strip(), "an error without a text"
        return "sentence"
    finally:
        release()


def _alarm(signum: int, frame: Any) -> None:
    raise TimeoutError(f"no end within {SECONDS} s")


def main() -> int:
    """Run the inputs and print how each kind ended; 1 where one ended in a traceback or hung."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=list(KINDS), metavar="KIND")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    share = sum(KINDS[kind][1] for kind in options.kinds)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in options.kinds}
    signal.signal(signal.SIGALRM, _alarm)
    for kind in options.kinds:
        for number in range(round(options.inputs * KINDS[kind][1] / share)):
            seed = f"{kind} {options.seed + number}"
            faulthandler.dump_traceback_later(3 * SECONDS, exit=True)  # for what no signal interrupts
            signal.alarm(SECONDS)
            try:
                with tempfile.TemporaryDirectory() as folder:
                    ended = outcome(kind, random.Random(seed), Path(folder))
            except TimeoutError:
                ended = "hang"
            except BaseException as error:
                ended = "traceback"
                text = "".join(traceback.format_exception(error)[-3:])
                print(f"--- {seed}: {inert(text)[-1500:]}", file=sys.stderr, flush=True)
            signal.alarm(0)
            counts[kind][ended] += 1
    faulthandler.cancel_dump_traceback_later()
    for kind, found in counts.items():
        print(f"{kind:14}" + "".join(f"{name} {found[name]:>6}   " for name in ("ok", "sentence", "traceback", "hang")))
    total = sum(counts.values(), Counter())
    print(f"{'all':14}" + "".join(f"{name} {total[name]:>6}   " for name in ("ok", "sentence", "traceback", "hang")))
    return int(bool(total["traceback"] or total["hang"]))


if __name__ == "__main__":
    sys.exit(main())
