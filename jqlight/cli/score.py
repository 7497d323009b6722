"""``jqlight score``: metrics of a file of predictions, without model or network."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jqlight.cli.arguments import CommandParser
from jqlight.errors import ConfigError
from jqlight.names import BENCHMARKS, meant

if TYPE_CHECKING:
    from jqlight.benchmarks import Benchmark
    from jqlight.benchmarks.evaluator import Evaluator


def main(argv: Sequence[str]) -> int:
    """Score the predictions and print the metrics; 0."""
    parser = CommandParser("score", "Score a predictions file (jqlight evaluate and predict write them) offline.")
    parser.add_argument("predictions", type=Path, help="JSON Lines: id, answer and references, per sample")
    parser.add_argument(
        "--benchmark", help=f"{', '.join(BENCHMARKS)}; default: the one in the scores.json beside the file"
    )
    parser.add_argument("-k", type=int, help="samples that vote; default: as many as every question has")
    parser.add_argument("--out", type=Path, help="write the rows with the new verdicts here")
    options = parser.parse_args(argv)
    if not options.predictions.is_file():
        raise ConfigError(f"predictions: {options.predictions} does not exist")

    from jqlight.cli.predictions import metrics_table, write_rows

    evaluator = rescored(options.predictions, benchmark_class(options.benchmark, options.predictions), options.k)
    print(metrics_table({name: float(value) for name, value in evaluator.compute().items()}))
    if options.out is not None:
        write_rows(options.out, evaluator.rows())
    return 0


def rescored(predictions: Path, benchmark: "type[Benchmark]", k: int | None) -> "Evaluator":
    """An evaluator that has counted the file's predictions.

    Raises:
        ConfigError: a question with fewer than ``k`` samples, or ``k`` below 1.
        DataError: a line that cannot be read.
    """
    from jqlight.benchmarks.evaluator import Evaluator
    from jqlight.cli.predictions import read_predictions

    questions = read_predictions(predictions)
    fewest = min(len(answers) for _, answers, _ in questions)
    if not fewest or (k is not None and not 1 <= k <= fewest):
        raise ConfigError(f"-k: given {k}, allowed is 1 to {fewest}, the fewest samples that a question has")
    evaluator = Evaluator(benchmark.verifiers, k or fewest, benchmark.normalise, benchmark.rationale_verifiers)
    for example, answers, rationales in questions:
        evaluator.update([example], [answers], [rationales])
    return evaluator


def benchmark_class(name: str | None, predictions: Path) -> "type[Benchmark]":
    """The benchmark of this name, by default that of the ``scores.json`` beside the predictions.

    Raises:
        ConfigError: no name and no ``scores.json``, or no such benchmark.
    """
    from jqlight.cli.config import find_class

    beside = predictions.parent / "scores.json"
    if name is None and beside.is_file():
        name = str(json.loads(beside.read_text(encoding="utf-8")).get("benchmark"))
    if name is None:
        raise ConfigError(f"--benchmark: not given, and there is no {beside}; allowed are {', '.join(BENCHMARKS)}")
    found = find_class("data", name)
    if found is None or not hasattr(found, "verifiers"):
        allowed = f"{', '.join(BENCHMARKS)} or a class's import path{meant(name, BENCHMARKS)}"
        raise ConfigError(f"--benchmark: given {name}, allowed are {allowed}")
    return found
