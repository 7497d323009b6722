"""Kill runs at random moments, resume them, and compare them with unharmed ones: the table of docs/reliability.md.

    make survive                                          # 20 kills of each kind; about an hour on 2 CPU cores
    python scripts/survive.py --kills 2 --kinds lookahead # a part

Each kind of run is trained once to its end. Then it is begun again in a fresh folder, killed with its children at a
random moment from its start on (``kill -9``, or in every third case SIGTERM), resumed with ``--ckpt_path last`` and
compared: weights, optimizer, best checkpoint, metrics, samples and MLflow's history.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
MARK = "<!-- made by scripts/survive.py -->"
SMALL = {
    "model.rollouts": 8, "model.samples": 4, "model.sampler.engine": "transformers", "data.train_size": 128,
    "data.validation_size": 8, "data.prompts_per_step": 4, "trainer.max_steps": 24, "trainer.val_check_interval": 8,
    "checkpoint.every_minutes": 0.05,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "GARL": {},
    "GARL, lookahead": {"model.sampler.lookahead": 1},
    "GARL, schedule of q": {"model.q": "jqlight.schedules.Linear", "model.q.steps": 24},
    "PAFT": {"model": "jqlight.estimators.PAFT"},
    "GARL, vLLM": {"model.sampler.engine": "vllm"},
}


def command(folder: Path, kind: str, *more: str) -> list[str]:
    """The command of a run in ``folder/run``."""
    given = {**SMALL, **KINDS[kind]}
    options = [f"--{key}={value}" for key, value in given.items()]
    start = [sys.executable, "-m", "jqlight", "fit", "--config", str(ROOT / "conf" / "quickstart.yaml")]
    options.sort(key=lambda option: option.partition("=")[0].count("."))  # a class comes before its settings
    return [*start, *options, "--run_dir", str(folder / "run"), *more]


def start(folder: Path, kind: str, *more: str) -> subprocess.Popen[bytes]:
    """Begin a run; its output goes to ``folder/log.txt``."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            command(folder, kind, *more), cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def outcome(folder: Path) -> dict[str, Any]:
    """What a run has left, part by part, without times."""
    import torch

    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    points = sorted((row["step"], key, value) for row in rows for key, value in row.items() if _kept(key))
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        history = store.execute("SELECT step, key, value FROM metrics ORDER BY step, key").fetchall()
        states = store.execute("SELECT status FROM runs").fetchall()
    found = {name: torch.load(folder / f"run/checkpoints/{name}.ckpt", weights_only=True) for name in ("last", "best")}
    return {
        "weights": str({name: _bits(part["state_dict"]) for name, part in found.items()}),
        "optimizer": str(_bits(found["last"]["optimizer_states"])),
        "metrics": points,
        "samples": {path.name: path.read_text() for path in (folder / "run/samples").iterdir()},
        "MLflow": ([row for row in history if _kept(row[1])], len(history), states),
    }


def _kept(key: str) -> bool:
    return key not in ("step", "time") and not key.startswith("time/")


def _bits(node: Any) -> Any:
    if hasattr(node, "numpy"):
        return node.float().numpy().tobytes()
    if isinstance(node, dict):
        return {key: _bits(value) for key, value in node.items()}
    return [_bits(value) for value in node] if isinstance(node, list | tuple) else node


def trial(work: Path, kind: str, number: int, seconds: float, draw: random.Random) -> set[str]:
    """Kill a run once and resume it: the parts that differ from ``work/whole``."""
    folder = work / str(number)
    process = start(folder, kind)
    time.sleep(draw.uniform(0.1, seconds))
    sent = signal.SIGTERM if number % 3 == 2 else signal.SIGKILL
    if process.poll() is None:
        os.killpg(process.pid, sent)
    code = process.wait()
    wrong = set() if sent == signal.SIGKILL or code in (0, 128 + sent) else {f"exit code {code}"}
    before = (folder / "log.txt").stat().st_size
    if start(folder, kind, "--ckpt_path", "last").wait():
        return {"resume failed: " + (folder / "log.txt").read_text()[before:].strip()[-200:]}
    ours, theirs = outcome(folder), outcome(work / "whole")
    again = (folder / "log.txt").read_bytes()[before:].decode(errors="replace")
    wrong |= {part for part in theirs if ours[part] != theirs[part]}
    if "Traceback" in again:
        wrong.add("traceback")
    shutil.rmtree(folder)
    return wrong


def main() -> int:
    """0 when every resumed run is identical; the table goes into the page when every kind was tried."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help=f"of {', '.join(KINDS)} (a part of a name)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if any(part in kind for part in options.kinds)]
    draw, rows = random.Random(options.seed), []
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="survive_") as name:
            work, begin = Path(name), time.monotonic()
            if start(work / "whole", kind).wait():
                raise SystemExit(f"{kind}: {(work / 'whole/log.txt').read_text()[-500:]}")
            seconds = time.monotonic() - begin
            found = [trial(work, kind, number, seconds, draw) for number in range(options.kills)]
        wrong = sorted(set().union(*found))
        rows.append(f"| {kind} | {options.kills} | {sum(not w for w in found)} | {', '.join(wrong) or '-'} |")
        print(rows[-1], flush=True)
    head, end = PAGE.read_text(encoding="utf-8").split(MARK)[::2]
    table = ["| Run | Killed | Identical | What differed |", "|---|---|---|---|", *rows]
    PAGE.write_text("\n".join([head + MARK, "", *table, "", MARK + end]), encoding="utf-8")
    return int(any(not row.endswith("| - |") for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
