"""The base of every benchmark: records in, :class:`Example` out.

A benchmark of one's own is a subclass with a ``task`` (the warm description) and ``item`` (one record's input and gold
answer); subsets, tokens, dropped records and loaders are here.
"""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from lightning import LightningDataModule

from jqlight.benchmarks import records
from jqlight.benchmarks.examples import LONG_GOLDS, Example, Item, checked, remarks, remarks_on
from jqlight.benchmarks.loaders import EvaluationLoader, TrainLoader
from jqlight.benchmarks.prompts import cold_ids, warm_ids
from jqlight.benchmarks.records import SPLITS, HubSource, Record, Split
from jqlight.benchmarks.selection import SplitCounts, Unusable, describe, select
from jqlight.errors import ConfigError, DataError, JQLightError
from jqlight.metrics.verifiers import Verifier, exact_match, on_answer, substring_match
from jqlight.metrics.voting import fold, visible
from jqlight.token_format import TokenFormat

log = logging.getLogger("jqlight")

_UNKNOWN = "gold with unknown tokens"


class Benchmark(LightningDataModule):
    """Questions with gold answers, as loaders of ``list[Example]``.

    A split's subset is the first usable records in the order of a hash of (seed, id): the same on every machine.
    Records that cannot be used are dropped and counted by reason in :attr:`dropped`; nothing is truncated.

    Args:
        path: file or folder in the benchmark's official format; without it the hub is used.
        scenario: cold (the linearised input alone) or warm (task description and answer format, chat template).
        train_size: training examples; None takes the benchmark's own number, "all" every record.
        validation_size: likewise.
        test_size: likewise.
        prompts_per_step: prompts of one optimizer step, over all processes.
        max_prompt_tokens: longer prompts are dropped and counted.
        seed: of the subsets and of the training order; None for the subsets of 0, the same in every run, in the order
            of the run's seed.
        necessity: also measure whether the rationales are needed, see :class:`jqlight.estimators.necessity.Necessity`.

    Raises:
        ConfigError: a number below 1, or an unknown scenario.
    """

    task: ClassVar[str] = "Answer the question."
    """Warm scenario: what is to be done and how the answer is to be written."""
    sizes: ClassVar[Mapping[Split, int]] = {}
    """Subset sizes where none is given; a split that is not named is taken whole."""
    id_field: ClassVar[str] = "id"
    files: ClassVar[Mapping[Split, tuple[str, ...]]] = records.FILES
    """File names looked for in a folder."""
    hub: ClassVar[HubSource | None] = None
    verifiers: ClassVar[Mapping[str, Verifier]] = {
        "": on_answer(substring_match),
        "exact_": on_answer(exact_match),
    }
    """Metric prefix to verifier; the empty prefix is the paper's rule."""
    rationale_verifiers: ClassVar[Mapping[str, Verifier]] = {}
    """Metric to the verifier that judges a sampled rationale, as text with its end of thinking; what it gets as
    references are the prompt and then the golds."""
    evaluation_batch: ClassVar[int] = 64
    """Prompts sampled at once in validation, test and predict."""
    reward: ClassVar[str] = "exact_"
    """Prefix of the verifier whose score of a sampled answer estimators train on where ``model.reward`` is null."""

    # Ranks may have no validation batch at all when there are more of them than examples.
    allow_zero_length_dataloader_with_multiple_devices = True

    def __init__(
        self,
        path: str | None = None,
        scenario: Literal["cold", "warm"] = "cold",
        train_size: int | Literal["all"] | None = None,
        validation_size: int | Literal["all"] | None = None,
        test_size: int | Literal["all"] | None = None,
        prompts_per_step: int = 8,
        max_prompt_tokens: int = 4096,
        seed: int | None = None,
        necessity: bool = False,
    ) -> None:
        super().__init__()
        if scenario not in ("cold", "warm"):
            raise ConfigError(f"data.scenario: given '{scenario}', allowed are cold and warm")
        asked = {"train_size": train_size, "validation_size": validation_size, "test_size": test_size}
        numbers = {
            **{name: size for name, size in asked.items() if size not in (None, "all")},
            "prompts_per_step": prompts_per_step,
            "max_prompt_tokens": max_prompt_tokens,
        }
        for name, value in numbers.items():
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"data.{name}: given {value!r}, allowed is 1 or more")
        self.path = path
        self.scenario = scenario
        self.prompts_per_step = prompts_per_step
        self.max_prompt_tokens = max_prompt_tokens
        self.seed = 0 if seed is None else seed
        self._order_seed = seed
        self.necessity = necessity
        self.asked = {split: asked[f"{split}_size"] for split in SPLITS}
        self.counts: dict[Split, SplitCounts] = {}
        self._examples: dict[Split, list[Example]] = {}
        self._token_format: TokenFormat | None = None
        self._run_seed = 0
        self._max_answer_tokens: int | None = None
        self._trains_on_answers = True

    @staticmethod
    def normalise(answer: str) -> str:
        """The form in which a majority vote compares answers; where it is empty the folded text is compared."""
        return fold(answer)

    def item(self, record: Record) -> Item:
        """The input and gold answer of one record; what every benchmark defines."""
        raise NotImplementedError

    def read(self, split: Split) -> Iterable[Record]:
        """The records of a split, before any selection.

        Raises:
            ConfigError: ``path`` does not exist or has no file for the split.
            DataError: a file or record that cannot be read.
            HubError: no ``path``, and the hub cannot be reached.
        """
        if self.path is not None:
            return records.read_path(self.path, split, self.id_field, self.files)
        if self.hub is None:
            raise ConfigError(f"data.path: {type(self).__name__} has no copy on the hub; give a file or folder")
        return records.read_hub(self.hub, split, self.id_field)

    def check_path(self) -> None:
        """Refuse a path where nothing is, before anything is loaded.

        Raises:
            ConfigError: that.
        """
        if self.path is not None:
            records.existing(self.path)

    def bind(
        self,
        token_format: TokenFormat,
        run_seed: int = 0,
        max_answer_tokens: int | None = None,
        *,
        trains_on_answers: bool = True,
    ) -> "Benchmark":
        """The benchmark itself, tokenising with ``token_format``; what it has tokenised otherwise is forgotten.

        ``run_seed`` orders the training examples unless :attr:`seed` was given. Golds of more than
        ``max_answer_tokens``, which no sampled answer can be, are told; of the training split where it
        ``trains_on_answers`` that are sampled.
        """
        self._run_seed, self._trains_on_answers = run_seed, trains_on_answers
        self._max_answer_tokens = max_answer_tokens
        if self._token_format is not token_format:
            self._token_format, self._examples = token_format, {}
        return self

    def setup(self, stage: str) -> None:
        """Read and tokenise the splits that ``stage`` (fit, validate, test, predict) needs, once.

        Raises:
            ConfigError: see :meth:`check`; a training without validation needs no validation examples.
        """
        wanted: dict[str, tuple[Split, ...]] = {"fit": ("train", "validation"), "validate": ("validation",)}
        trains_only = stage == "fit" and self.trainer is not None and self.trainer.limit_val_batches == 0
        for split in wanted.get(stage, ("test",)):
            self.examples(split)
            if not (trains_only and split == "validation"):
                self.check(split)
        if stage == "fit":
            self.train_dataloader()  # its errors come before an engine is started

    def examples(self, split: Split) -> list[Example]:
        """The examples of a split, read on first use."""
        if split not in self._examples:
            self._examples[split] = self._select(split)
        return self._examples[split]

    def check(self, split: Split) -> None:
        """Refuse a split with which nothing can be trained or measured, and warn of golds that no answer can be.

        Raises:
            ConfigError: the split has no example, or answers are sampled for it and every gold is longer than those.
        """
        examples, counts = self.examples(split), self.counts[split]
        if not examples:
            fault = counts.problem or "data: give other records"
            without = ", or train without validation (trainer.limit_val_batches: 0)" if split == "validation" else ""
            raise ConfigError(
                f"{fault}{without}; none of the {counts.records} records of the {split} split can be used (dropped: "
                f"{counts.reasons})"
            )
        if split == "train" and not self._trains_on_answers:
            return
        long, limit = self._remarks(split)[LONG_GOLDS], self._max_answer_tokens
        if long == len(examples):
            shortest = min(len(example.target_ids) for example in examples)
            raise ConfigError(
                f"sampler.max_answer_tokens: given {limit}, allowed is {shortest} or more: the shortest gold answer of "
                f"the {split} split has so many tokens with separator and end of sequence"
            )
        if long:
            log.warning(
                "sampler.max_answer_tokens: given %s, too few for %d of the %d gold answers of the %s split, which no "
                "sampled answer can equal; raise it.",
                limit,
                long,
                len(examples),
                split,
            )

    def train_dataloader(self) -> TrainLoader[Example]:
        """A resumable loader of ``prompts_per_step`` examples over all ranks; see :class:`TrainLoader`.

        Raises:
            ConfigError: too few examples for one step, or prompts that do not divide between the ranks.
        """
        examples = self.examples("train")
        rank, world_size = self._rank_and_world_size()
        seed = self._run_seed if self._order_seed is None else self._order_seed
        loader = TrainLoader(examples, self.prompts_per_step, seed, rank, world_size)
        limit = 1.0 if self.trainer is None else self.trainer.limit_train_batches
        if isinstance(limit, int) or limit != 1.0:  # 1 is one batch, 1.0 all of them
            loader.limit_epoch(limit if isinstance(limit, int) else int(limit * len(loader)))
        return loader

    def val_dataloader(self) -> EvaluationLoader[Example]:
        """Batches of validation examples."""
        return EvaluationLoader(self.examples("validation"), self.evaluation_batch, *self._rank_and_world_size())

    def test_dataloader(self) -> EvaluationLoader[Example]:
        """Batches of test examples."""
        return EvaluationLoader(self.examples("test"), self.evaluation_batch, *self._rank_and_world_size())

    def predict_dataloader(self) -> EvaluationLoader[Example]:
        """Batches of test examples."""
        return self.test_dataloader()

    def transfer_batch_to_device(self, batch: list[Any], device: torch.device, dataloader_idx: int) -> list[Any]:
        """The batch as it is: examples are token ids in lists, and only the policy makes tensors of them."""
        return batch

    @property
    def dropped(self) -> dict[str, dict[str, int]]:
        """Split to reason to number of records that could not be used."""
        return {split: dict(counts.dropped) for split, counts in self.counts.items()}

    def summary(self) -> str:
        """A table for people of the splits read so far: records, size asked for, examples used, dropped, remarks.

        Below it what the tokenizer and its chat template do that one should know.
        """
        notes = () if self._token_format is None else self._token_format.notes
        return "\n".join([describe(self.counts, {split: self._remarks(split) for split in self.counts}), *notes])

    def _remarks(self, split: Split) -> dict[str, int]:
        """What is to be known of a split's examples, and of how many of them."""
        trained = self._examples.get("train", []) if split != "train" else []
        return remarks(self._examples.get(split, []), trained, self._max_answer_tokens, self.verifiers)

    def prompt_ids(self, text: str) -> list[int]:
        """Token ids of an input's rendering in this benchmark's scenario."""
        if self.scenario == "cold":
            return cold_ids(text, self.token_format)
        return warm_ids(self.task, text, self.token_format)

    @property
    def token_format(self) -> TokenFormat:
        """The bound format; under a trainer the module binds its own before any data are read.

        Raises:
            ConfigError: there is none.
        """
        if self._token_format is None:
            raise ConfigError(f"{type(self).__name__} has no tokenizer: call bind(token_format), or use a trainer")
        return self._token_format

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _select(self, split: Split) -> list[Example]:
        given = self.asked[split]
        asked = None if given == "all" else self.sizes.get(split) if given is None else int(given)
        examples, counts = select(self.read(split), self.id_field, asked, self.seed, self._example)
        if not examples and _UNKNOWN in counts.dropped:
            log.warning(
                "policy.name_or_path: the tokenizer lacks tokens for every gold answer of the %s split, which no "
                "sampled answer can equal; they are kept, as no other is left.",
                split,
            )
            lossy = partial(self._example, lossy=True)
            examples, counts = select(self.read(split), self.id_field, asked, self.seed, lossy)
        self.counts[split] = counts
        return examples

    def _item(self, record: Record) -> Item:
        """The record's item with fields of the right types; None and one string are references too."""
        name = f"{record.where}: {type(self).__name__}.item"
        try:
            item = self.item(record)
        except JQLightError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise DataError(f"{name} cannot read it ({type(error).__name__}: {error})") from error
        return checked(item, name)

    def _example(self, record: Record, *, lossy: bool = False) -> Example | Unusable:
        """The example, or why there is none."""
        if not isinstance(record, Record):  # a class of one's own may read plain dictionaries
            record = Record(record, f"{type(self).__name__} record {record[self.id_field]}")
        item, form = self._item(record), self.token_format
        answer = visible(item.answer)
        if item.unusable:
            return Unusable(item.unusable, item.problem)
        if not answer:
            return Unusable("empty gold")
        if not visible(item.text):
            return Unusable("empty question")
        prompt_ids = self.prompt_ids(item.text)
        if len(prompt_ids) > self.max_prompt_tokens:
            given = f"data.max_prompt_tokens: given {self.max_prompt_tokens}"
            return Unusable("prompt too long", f"{given}, but {record.where} has a prompt of {len(prompt_ids)} tokens")
        written = form.read_back(answer)
        if written is None and not lossy:
            return Unusable(_UNKNOWN)
        written = written or answer
        golds = [gold for text in (answer, *item.references) for gold in (form.read_back(text), text)]
        prompt = form.decode(prompt_ids)
        return Example(
            id=record[self.id_field],
            prompt=prompt,
            prompt_ids=tuple(prompt_ids),
            answer=written,
            target_ids=tuple(form.encode_target(answer)),
            references=tuple(dict.fromkeys(gold for gold in golds if gold is not None)),
            rationale=item.rationale,
            question=fold(item.question or item.text),
            remarks=remarks_on(item, written, prompt, form),
        )
