"""``jqlight prompts``: a benchmark's prompts and gold answers as the model will see them, with their token counts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jqlight.cli.arguments import CommandParser
from jqlight.errors import ConfigError
from jqlight.names import inert

if TYPE_CHECKING:
    from jqlight.benchmarks import Benchmark, Example


def main(argv: Sequence[str]) -> int:
    """Print the first prompts of a config's benchmark; 0."""
    parser = CommandParser(
        "prompts", "Print a config's prompts. Any setting of the config can be given behind, as with jqlight fit."
    )
    parser.add_argument("--config", required=True, help="config file; its benchmark and tokenizer are used")
    parser.add_argument("-n", "--number", type=int, default=3, help="prompts to print (default 3)")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="train", help="default train")
    options, overrides = parser.parse_known_args(argv)
    if options.number < 1:
        raise ConfigError(f"--number: given {options.number}, allowed is 1 or more")

    from jqlight.cli.build import built

    _, benchmark = built("prompts", ["--config", options.config, *overrides])
    size = benchmark.asked[options.split]
    benchmark.asked[options.split] = options.number if size in (None, "all") else min(options.number, int(size))
    examples = benchmark.examples(options.split)
    if not examples and benchmark.counts[options.split].problem:
        benchmark.check(options.split)
    for example in examples:
        print(inert(shown(example, benchmark)))
    print(benchmark.summary())
    return 0


def shown(example: "Example", benchmark: "Benchmark") -> str:
    """One example for people: counts, prompt, gold answer with the tokens that are scored, other golds."""
    target = benchmark.token_format.decode(example.target_ids)
    lines = [
        f"=== {example.id}: prompt {len(example.prompt_ids)} tokens, answer {len(example.target_ids)} tokens",
        example.prompt,
        f"--- answer: {example.answer}",
        f"--- scored: {target!r}",
    ]
    others = example.references[1:]
    return "\n".join(lines + ([f"--- also accepted: {', '.join(others)}"] if others else [])) + "\n"
