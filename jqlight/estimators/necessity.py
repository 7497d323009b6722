"""Whether rationales are needed: the gold and the greedy answer behind a question's own, another's and none."""

from collections.abc import Iterable, Mapping, Sequence
from math import fsum

import torch

from jqlight.benchmarks import Example
from jqlight.estimators import distributed
from jqlight.files import stable_hash
from jqlight.metrics.verifiers import Verifier, judge
from jqlight.policy import Continuation, Policy
from jqlight.sampling import Decoding, Rollout, Sampler

GREEDY = Decoding(temperature=0.0)

Question = dict[str, float | str]
"""``id`` and the question's own values; a metric is the mean of its values over questions."""


class Necessity:
    """What rationales are worth, measured on the rationales of a validation or test.

    A question's values are means over its samples z_1..z_k:

    - ``gain``: log p(y*|x, z) - log p(y*|x, no z), nats;
    - ``{p}own_accuracy``: score of the greedy answer behind x and z, for the prefix p of each verifier;
    - ``{p}necessity_swapped``: that minus the score behind the z of another question (sample m takes sample m);
    - ``{p}necessity_empty``: that minus the score behind an empty z;
    - ``empty_rationales``: share of z without anything but white space; ``thinking_tokens``: tokens of z.

    An empty z is the end of thinking forced behind the prompt. Which question lends its z depends on the ids and the
    seed alone (:func:`partners`), so that any number of ranks and any batch size measure the same.

    Args:
        policy: gives log p(y*|x, z).
        sampler: gives greedy answers; its engine has the policy's weights.
        verifiers: metric prefix to verifier.
        seed: of the exchange of rationales.
    """

    def __init__(self, policy: Policy, sampler: Sampler, verifiers: Mapping[str, Verifier], seed: int) -> None:
        self._policy, self._sampler, self._verifiers, self._seed = policy, sampler, verifiers, seed
        self.reset()

    def reset(self) -> None:
        """Forget every question."""
        self._examples: list[Example] = []
        self._thoughts: list[list[tuple[int, ...]]] = []
        self._values: list[Question] = []

    def update(self, examples: Sequence[Example], groups: Sequence[Sequence[Rollout]]) -> None:
        """Take up questions with their sampled rollouts, and compute what needs no other question."""
        is_blank = self._sampler.token_format.is_blank
        for example, rollouts in zip(examples, groups, strict=True):
            self._examples.append(example)
            self._thoughts.append([(*r.rationale_ids, *r.forced_ids) for r in rollouts])
            self._values.append(
                {
                    "id": example.id,
                    "gain": self._gain(example, rollouts),
                    "empty_rationales": _mean(is_blank(r.rationale_ids) for r in rollouts),
                    "thinking_tokens": _mean(len(r.rationale_ids) for r in rollouts),
                }
            )

    def questions(self) -> list[Question]:
        """The values of all ranks' questions, on every rank; each rank must call it once, after its last update."""
        own = [(e.id, thoughts) for e, thoughts in zip(self._examples, self._thoughts, strict=True)]
        lent = dict(pair for rank in distributed.gathered(own) for pair in rank)
        partner = partners(lent, self._seed)
        sets = {"own": self._thoughts, "empty": [[self._sampler.token_format.end_ids]] * len(self._examples)}
        if partner:
            sets["swapped"] = [lent[partner[example.id]] for example in self._examples]
        scores = {name: self._scores(thoughts) for name, thoughts in sets.items()}
        for i, values in enumerate(self._values):
            for prefix in self._verifiers:
                accuracy = {name: found[i][prefix] for name, found in scores.items()}
                values[f"{prefix}own_accuracy"] = accuracy["own"]
                for name in ("swapped", "empty"):
                    if name in accuracy:
                        values[f"{prefix}necessity_{name}"] = accuracy["own"] - accuracy[name]
        return [values for rank in distributed.gathered(self._values) for values in rank]

    def _gain(self, example: Example, rollouts: Sequence[Rollout]) -> float:
        target, end = list(example.target_ids), list(self._sampler.token_format.end_ids)
        rows = [Continuation(r.rationale_ids, r.forced_ids, target) for r in rollouts]
        # Out of inference mode, whose tensors a later backward must not meet in the model's caches.
        with torch.inference_mode(False), torch.no_grad():
            *own, empty = self._policy.group(example.prompt_ids, [*rows, Continuation([], end, target)]).log_answer()
        return _mean((log_p - empty).item() for log_p in own)

    def _scores(self, thoughts: Sequence[Sequence[Sequence[int]]]) -> list[dict[str, float]]:
        """Prefix -> mean score of the greedy answers behind each question's ``thoughts``, question by question."""
        contexts = [
            [(*example.prompt_ids, *thought) for thought in row]
            for example, row in zip(self._examples, thoughts, strict=True)
        ]
        distinct = list(dict.fromkeys(context for row in contexts for context in row))
        replies = self._sampler.answers(distinct, [0] * len(distinct), GREEDY)
        answer = {
            context: self._sampler.token_format.decode_answer(reply.token_ids)
            for context, reply in zip(distinct, replies, strict=True)
        }
        return [
            {
                prefix: _mean(judge(verifier, [answer[context] for context in row], example.references))
                for prefix, verifier in self._verifiers.items()
            }
            for example, row in zip(self._examples, contexts, strict=True)
        ]


def partners(ids: Iterable[str], seed: int) -> dict[str, str]:
    """Question -> the one whose rationales it is given: the next in the order of a hash of (seed, id), in a circle.

    No question is its own partner, and each lends once. Empty for fewer than two questions.
    """
    order = sorted(ids, key=lambda i: (stable_hash("swap", seed, i), i))
    return dict(zip(order, [*order[1:], order[0]])) if len(order) > 1 else {}


def means(questions: Sequence[Question]) -> dict[str, float]:
    """Metric -> mean over questions, in float64 and the same for every order of them."""
    names = [name for name in (questions[0] if questions else {}) if name != "id"]
    return {name: fsum(float(question[name]) for question in questions) / len(questions) for name in names}


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return fsum(found) / len(found)
