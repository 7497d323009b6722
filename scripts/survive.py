"""Kill runs at random moments, resume them, and compare them with unharmed ones: the table of docs/reliability.md.

    make survive                                          # 20 kills of each kind; about an hour on 2 CPU cores
    python scripts/survive.py --kills 2 --kinds lookahead # a part

Each kind of run is trained once to its end. Then it is begun again in a fresh folder, killed with its children at a
random moment from its start on (``kill -9``, or one time in three SIGTERM), resumed with ``--ckpt_path last`` and
compared: weights, optimizer, best checkpoint, metrics, samples and MLflow's history. Runs are forked from a process
that has imported the libraries, which is most of a start and writes nothing.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
MARK = "<!-- made by scripts/survive.py -->"
SMALL = {
    "model.rollouts": 4, "model.samples": 2, "model.sampler.engine": "transformers", "data.train_size": 12,
    "model.sampler.max_thinking_tokens": 16, "data.validation_size": 4, "data.prompts_per_step": 2,
    "trainer.max_steps": 9, "trainer.val_check_interval": 4, "checkpoint.every_minutes": 0.01,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "GARL": {},
    "GARL, lookahead": {"model.sampler.lookahead": 1},
    "GARL, schedule of q": {"model.q": "jqlight.schedules.Linear", "model.q.steps": 9},
    "PAFT": {"model": "jqlight.estimators.PAFT"},
    "GARL, vLLM": {"model.sampler.engine": "vllm"},
}


def options(folder: Path, kind: str) -> list[str]:
    """The options of a run in ``folder/run``."""
    given = [f"--{key}={value}" for key, value in {**SMALL, **KINDS[kind]}.items()]
    given.sort(key=lambda option: option.partition("=")[0].count("."))  # a class comes before its settings
    return ["--config", str(ROOT / "conf" / "quickstart.yaml"), *given, "--run_dir", str(folder / "run")]


def start(folder: Path, words: list[str]) -> BaseProcess:
    """Begin ``jqlight fit`` with the given words, in a process group of its own; its output goes to ``log.txt``."""
    folder.mkdir(exist_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_fit, args=(folder, words))
    process.start()
    os.setpgid(process.pid or 0, 0)
    return process


def _fit(folder: Path, words: list[str]) -> None:
    from jqlight.cli.main import main

    os.chdir(folder)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for target, name, mode in ((0, os.devnull, os.O_RDONLY), (1, "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
        os.dup2(os.open(name, mode, 0o644), target)
    os.dup2(1, 2)
    sys.argv = ["jqlight", "fit", *words]
    raise SystemExit(main())


def ended(process: BaseProcess) -> int:
    """Exit code of a run, once it has one."""
    process.join()
    return int(process.exitcode or 0)


def preload() -> None:
    """Import what every run does."""
    from jqlight import quiet

    quiet.silence_libraries()
    for name in ("jqlight.cli.fit", "jqlight.cli.build", "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store"):
        importlib.import_module(name)


def outcome(folder: Path) -> dict[str, Any]:
    """What a run has left, part by part, without times."""
    import torch

    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    points = sorted((row["step"], key, value) for row in rows for key, value in row.items() if _kept(key))
    history, states = _uploaded(folder / "mlflow.db")
    found = {name: torch.load(folder / f"run/checkpoints/{name}.ckpt", weights_only=True) for name in ("last", "best")}
    return {
        "weights": str({name: _bits(part["state_dict"]) for name, part in found.items()}),
        "optimizer": str(_bits(found["last"]["optimizer_states"])),
        "metrics": points,
        "samples": {path.name: path.read_text() for path in (folder / "run/samples").iterdir()},
        "MLflow": ([row for row in history if _kept(row[1])], len(history), states),
    }


def _uploaded(store: Path) -> tuple[list[Any], list[Any]]:
    """Rows of metrics and of states in MLflow's store; nothing where it was not made."""
    if not store.exists():
        return [], []
    with closing(sqlite3.connect(store)) as opened:
        history = opened.execute("SELECT step, key, value FROM metrics ORDER BY step, key").fetchall()
        return history, opened.execute("SELECT status FROM runs").fetchall()


def _kept(key: str) -> bool:
    return key not in ("step", "time") and not key.startswith("time/")


def _bits(node: Any) -> Any:
    if hasattr(node, "numpy"):
        return node.float().numpy().tobytes()
    if isinstance(node, dict):
        return {key: _bits(value) for key, value in node.items()}
    return [_bits(value) for value in node] if isinstance(node, list | tuple) else node


def lines(folder: Path) -> int:
    """Lines of the run's metrics."""
    path = folder / "run/metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill(process: BaseProcess, folder: Path, whole: int, seconds: float, draw: random.Random) -> signal.Signals | None:
    """Kill a run at a random line of its metrics, in its start or export; the signal, None if it had ended before."""
    line = draw.randint(0, whole)
    while lines(folder) < line and process.is_alive():
        time.sleep(0.005)
    time.sleep(draw.uniform(0, seconds / 4 if line in (0, whole) else seconds / whole))
    sent = signal.SIGTERM if draw.random() < 1 / 3 else signal.SIGKILL
    if not process.is_alive():
        return None
    os.killpg(process.pid or 0, sent)
    return sent


def trial(work: Path, kind: str, number: int, seconds: float, draw: random.Random) -> set[str]:
    """Kill a run once and resume it: the parts that differ from ``work/whole``; a folder with such parts is kept."""
    folder, sent = work / str(number), None
    while sent is None:
        shutil.rmtree(folder, ignore_errors=True)
        process = start(folder, options(folder, kind))
        sent = kill(process, folder, lines(work / "whole"), seconds, draw)
        code, at = ended(process), lines(folder)
    wrong = set() if code in (0, -sent if sent == signal.SIGKILL else 128 + sent) else {f"exit code {code}"}
    before = (folder / "log.txt").stat().st_size
    if ended(start(folder, [*options(folder, kind), "--ckpt_path", "last"])):
        wrong.add("resume failed: " + (folder / "log.txt").read_text()[before:].strip()[-200:])
    else:
        ours, theirs = outcome(folder), outcome(work / "whole")
        wrong |= {part for part in theirs if ours[part] != theirs[part]}
    if b"Traceback" in (folder / "log.txt").read_bytes()[before:]:
        wrong.add("traceback")
    kept = f"; kept in {shutil.move(folder, tempfile.mkdtemp(prefix='survive_wrong_'))}" if wrong else ""
    print(f"{kind}, {number + 1}, {sent.name} at line {at}: {', '.join(wrong) or 'identical'}{kept}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return wrong


def _rows() -> dict[str, str]:
    """The rows that the page has, by kind."""
    table = PAGE.read_text(encoding="utf-8").split(MARK)[1].splitlines()
    return {kind: row for kind in KINDS for row in table if row.startswith(f"| {kind} |")}


def main() -> int:
    """0 when every resumed run is identical; the row of each kind tried goes into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help=f"of {', '.join(KINDS)} (a part of a name)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    kinds = [kind for kind in KINDS if any(part in kind for part in given.kinds)]
    preload()
    draw, rows = random.Random(given.seed), _rows()
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="survive_") as name:
            work, begin = Path(name), time.monotonic()
            if ended(start(work / "whole", options(work / "whole", kind))):
                raise SystemExit(f"{kind}: {(work / 'whole/log.txt').read_text()[-500:]}")
            seconds = time.monotonic() - begin
            found = [trial(work, kind, number, seconds, draw) for number in range(given.kills)]
        wrong = sorted(set().union(*found))
        rows[kind] = f"| {kind} | {given.kills} | {sum(not w for w in found)} | {', '.join(wrong) or '-'} |"
        print(rows[kind], flush=True)
    head, end = PAGE.read_text(encoding="utf-8").split(MARK)[::2]
    table = ["| Run | Killed | Identical | What differed |", "|---|---|---|---|", *rows.values()]
    PAGE.write_text("\n".join([head + MARK, "", *table, "", MARK + end]), encoding="utf-8")
    return int(any(not row.endswith("| - |") for row in rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
