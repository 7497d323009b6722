"""``jqlight evaluate``: scores of any model folder, trained or not, on a config's benchmark; every sample is kept."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jqlight.cli.arguments import CommandParser
from jqlight.errors import ConfigError

if TYPE_CHECKING:
    from jqlight.benchmarks import Benchmark
    from jqlight.benchmarks.evaluator import Evaluator
    from jqlight.estimators.base import Estimator


def main(argv: Sequence[str]) -> int:
    """Sample, score, print the metrics and say where the predictions are; 0."""
    parser = CommandParser(
        "evaluate",
        "Score a model on a config's benchmark with the config's sampling. Any setting can be given behind.",
    )
    parser.add_argument("--config", required=True, help="config file; benchmark, budgets and samples are taken from it")
    parser.add_argument("--model", help="model folder or hub id; default: the config's own")
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="default test")
    parser.add_argument("--out", type=Path, help="folder to write; default evaluations/MODEL-BENCHMARK-SPLIT, numbered")
    options, overrides = parser.parse_known_args(argv)
    if options.model and options.model.endswith(".ckpt"):
        raise ConfigError(
            f"--model: given the checkpoint {options.model}, allowed is a model folder; make one with "
            f"`jqlight export --ckpt {options.model} --out DIR`"
        )
    named = ["--model.policy.name_or_path", options.model] if options.model else []

    from jqlight.cli.build import built
    from jqlight.cli.predictions import metrics_table

    estimator, benchmark = built("evaluate", ["--config", options.config, *overrides, *named])
    folder = _new_folder(options.out, estimator, benchmark, options.split)
    metrics = evaluate(estimator, benchmark, options.split, folder)
    print(metrics_table(metrics))
    print(f"\npredictions and scores in {folder}; score them again with: jqlight score {folder}/predictions.jsonl")
    return 0


def evaluate(estimator: "Estimator", benchmark: "Benchmark", split: str, folder: Path) -> dict[str, float]:
    """Metrics by name (no stage prefix); writes ``predictions.jsonl`` as it goes and ``scores.json`` at the end.

    The samples are those of ``jqlight validate`` and ``jqlight test`` on the same model: same code, same seeds. The
    engine reads the model's folder itself, so no trainable copy of the weights is loaded, unless ``data.necessity`` is
    to score gold answers with it.
    """
    from jqlight.cli.predictions import write_rows

    benchmark.setup("validate" if split == "validation" else "test")
    print(benchmark.summary(), flush=True)
    estimator.start_sampler(benchmark)
    if benchmark.necessity:
        estimator.policy.load()
    estimator.build_evaluator(benchmark)
    evaluator = cast("Evaluator", estimator.evaluator)
    loader = benchmark.val_dataloader() if split == "validation" else benchmark.test_dataloader()
    step = estimator.validation_step if split == "validation" else estimator.test_step
    folder.mkdir(parents=True, exist_ok=True)
    written, started = 0, time.monotonic()
    for number, batch in enumerate(loader, 1):
        step(batch, number - 1)
        rows = evaluator.rows()
        write_rows(folder / "predictions.jsonl", rows[written:], append=written > 0)
        written = len(rows)
        print(f"batch {number} of {len(loader)}, {time.monotonic() - started:.0f} s", flush=True)
    metrics, _ = estimator.results()
    scores = {**_facts(estimator, benchmark, split), "metrics": metrics}
    scores = json.loads(json.dumps(scores), parse_constant=lambda _: None)  # JSON knows no NaN and no infinity
    (folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    return metrics


def _facts(estimator: "Estimator", benchmark: "Benchmark", split: str) -> dict[str, Any]:
    """What one must know to read the scores."""
    kind = type(benchmark)
    # Split as text: the parser allows its values alone.
    counts = benchmark.counts[split]  # type: ignore[index]
    return {
        "model": estimator.policy.path,
        "benchmark": f"{kind.__module__}.{kind.__qualname__}",
        "scenario": benchmark.scenario,
        "split": split,
        "examples": counts.used,
        "dropped": dict(counts.dropped),
        "samples": estimator.samples,
        "seed": estimator.run_seed,
        "sampler": asdict(estimator.sampler_config),
        "jqlight": version("jqlight"),
    }


def _new_folder(given: Path | None, estimator: "Estimator", benchmark: "Benchmark", split: str) -> Path:
    if given is not None:
        if (given / "predictions.jsonl").exists():
            raise ConfigError(f"--out: {given} holds predictions already; give another folder")
        return given
    model = Path(estimator.policy.config.name_or_path).name
    name = f"{model}-{type(benchmark).__name__}-{benchmark.scenario}-{split}".lower()
    numbered = (Path("evaluations") / (f"{name}-{n}" if n > 1 else name) for n in range(1, 10_000))
    return next(folder for folder in numbered if not folder.exists())
