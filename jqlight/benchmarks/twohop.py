"""TwoHop: generated questions whose answer is two facts away, for a run that needs no files and no network.

A question shows five facts in random order and asks for the end of a chain of two of them::

    e3 r1 e7 . e7 r4 e20 . e3 r0 e9 . e7 r2 e12 . e9 r2 e5 . ? e3 r1 r2        answer: e12

The three other facts close every short cut: the first entity has two facts (``r1`` is needed), the second relation
has two facts (the bridge ``e7`` is needed), and the bridge has two facts (``r2`` is needed). Each (entity, relation)
pair occurs once, so there is exactly one answer.

The questions are a fixed data set, like a file: question number i of a split is the same for every seed and size.
A chain belongs to one split alone, decided by its hash; one split, ``base``, is what the bundled model was trained on.
That model writes a chain, the right one in two samples of three, then ``</think>`` and ``ans e12``, while the gold
answer is ``[[ e12 ]]``, in tokens that it never saw in use: a cold start.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal

from jqlight.benchmarks.examples import Item
from jqlight.benchmarks.generated import Generated
from jqlight.benchmarks.records import Record, Split
from jqlight.errors import ConfigError
from jqlight.files import stable_hash

ENTITIES: tuple[str, ...] = tuple(f"e{i}" for i in range(30))
RELATIONS: tuple[str, ...] = tuple(f"r{i}" for i in range(5))

Source = Literal["base", "train", "validation", "test"]
SOURCES: tuple[Source, ...] = ("base", "train", "validation", "test")
MOST_QUESTIONS = 100_000
"""Questions that a split can give: each has a chain of its own, and there are about 152,000 chains a split."""
Fact = tuple[str, str, str]


@dataclass(frozen=True)
class Question:
    """Five facts in the order shown, and the chain of two of them that is asked for."""

    facts: tuple[Fact, ...]
    chain: tuple[Fact, Fact]

    @property
    def text(self) -> str:
        """The facts, each ended by a full stop, then ``? entity relation relation``."""
        (start, first, _), (_, second, _) = self.chain
        return " ".join([*(f"{' '.join(fact)} ." for fact in self.facts), "?", start, first, second])

    @property
    def rationale(self) -> str:
        """The two facts that lead to the answer, as the bundled model writes them."""
        return " . ".join(" ".join(fact) for fact in self.chain)

    @property
    def answer(self) -> str:
        """The entity at the end of the chain."""
        return self.chain[1][2]


def draw(rng: random.Random) -> Question:
    """One question from the generator's own distribution, whichever split it belongs to."""
    start, bridge, end, decoy, decoy_end, other = rng.sample(ENTITIES, 6)
    first, wrong_first = rng.sample(RELATIONS, 2)
    second, wrong_second = rng.sample(RELATIONS, 2)
    chain = ((start, first, bridge), (bridge, second, end))
    facts = [*chain, (start, wrong_first, decoy), (decoy, second, decoy_end), (bridge, wrong_second, other)]
    rng.shuffle(facts)
    return Question(tuple(facts), chain)


def source_of(question: Question) -> Source:
    """The one split that a question's chain belongs to; the other facts and their order do not matter."""
    return SOURCES[stable_hash("twohop", question.rationale) % len(SOURCES)]


def stream(source: Source) -> Iterator[Question]:
    """Questions of one split without end; a chain may come again with other facts around it."""
    rng = random.Random(f"twohop {source}")
    while True:
        question = draw(rng)
        if source_of(question) == source:
            yield question


def questions(source: Source, size: int) -> list[Question]:
    """The first ``size`` questions of a split, no two with the same chain."""
    seen: set[tuple[Fact, Fact]] = set()

    def unseen(question: Question) -> bool:
        known = question.chain in seen
        seen.add(question.chain)
        return not known

    return list(islice(filter(unseen, stream(source)), size))


def with_noise(answers: list[str], share: float) -> list[str]:
    """The answers with ``round(share * len(answers))`` of them replaced by another entity.

    Which ones, and by what, depends on the position alone: a larger share replaces the same ones and more.
    """
    order = sorted(range(len(answers)), key=lambda i: stable_hash("twohop noise", i))
    noisy = list(answers)
    for i in order[: round(share * len(answers))]:
        wrong = [entity for entity in ENTITIES if entity != answers[i]]
        noisy[i] = wrong[stable_hash("twohop wrong", i) % len(wrong)]
    return noisy


class TwoHop(Generated):
    """The bundled benchmark: generated questions over two facts; no file and no network.

    Made for the bundled model (``policy.name_or_path: twohop``) with ``thinking: {start: "", end: "</think>",
    separator: ""}``. There is one scenario, the cold one, as the model knows no instructions.

    Args:
        answer_format: the gold answer, ``{answer}`` standing for the entity. It sets how cold the start is, and with
            that the smallest q that escapes. Mean log w of the bundled model behind the right rationale, before
            training: ``[[ {answer} ]]`` -54, ``[[ : {answer} : ]]`` -86, ``: {answer}`` -20; ``ans {answer}`` is its
            own format, 0. Several, with ``|`` between them, start a training set at several depths: the question's last
            relation says which of them is its own, ``r0`` the first, ``r1`` the second and so on in turn.
        label_noise: share of the training answers that are replaced by a wrong entity, in [0, 1].
        **kwargs: see :class:`jqlight.benchmarks.Benchmark`; sizes are numbers up to 100,000, and ``path`` is not taken.

    Raises:
        ConfigError: a setting out of its range, or an ``answer_format`` that the tokenizer cannot write.
    """

    instead_of_warm: ClassVar[str] = "for a warm one set data.answer_format to the bundled model's own, 'ans {answer}'"
    sizes: ClassVar[Mapping[Split, int]] = {"train": 4096, "validation": 64, "test": 128}

    def __init__(self, answer_format: str = "[[ {answer} ]]", label_noise: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.formats = [text.strip() for text in answer_format.split("|")]
        if any(text.count("{answer}") != 1 for text in self.formats):
            raise ConfigError(
                f"data.answer_format: given '{answer_format}', allowed is a text with {{answer}} in it once, or "
                "several such texts with | between them"
            )
        if not 0 <= label_noise <= 1:
            raise ConfigError(f"data.label_noise: given {label_noise}, allowed is a share from 0 to 1")
        for split, size in self.asked.items():
            if size == "all" or (size or 0) > MOST_QUESTIONS:
                raise ConfigError(
                    f"data.{split}_size: given {size!r}, allowed is 1 to {MOST_QUESTIONS}, as questions are generated"
                )
        self.label_noise = label_noise

    def read(self, split: Split) -> Iterable[Record]:
        """As many questions as the split is to have, each with its id, text, rationale and answer.

        Raises:
            ConfigError: the tokenizer has no token for a word of ``answer_format``.
        """
        unknown = self.token_format.tokenizer.unk_token_id
        for text in self.formats:
            if unknown is not None and unknown in self.token_format.encode_target(_gold(text, ENTITIES[0])):
                raise ConfigError(
                    f"data.answer_format: given '{text}', but the model's tokenizer does not know all of its words; "
                    "the bundled model's words for this use are [[ ]] : ans"
                )
        drawn = questions(split, int(self.asked[split] or self.sizes[split]))
        answers = with_noise([q.answer for q in drawn], self.label_noise if split == "train" else 0.0)
        for number, (question, answer) in enumerate(zip(drawn, answers, strict=True)):
            name = f"{split}-{number}"
            fields = {"id": name, "question": question.text, "rationale": question.rationale, "answer": answer}
            yield Record(fields, f"TwoHop question {name}")

    def item(self, record: Record) -> Item:
        """The question as it is, its answer in its format, and the two facts that lead to it."""
        question = record.text("question")
        last = RELATIONS.index(question.split()[-1])
        gold = _gold(self.formats[last % len(self.formats)], record.text("answer"))
        return Item(question, gold, rationale=record.text("rationale"))


def _gold(answer_format: str, entity: str) -> str:
    return answer_format.replace("{answer}", entity)
