"""The two phases of a rollout, thinking and answering, within their token budgets, on any engine."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from jqlight.sampling.engine import Completion, Decoding, Engine, Request, Rollout, SamplerConfig, Stop
from jqlight.sampling.seeds import answer_seed
from jqlight.token_format import TokenFormat


class Sampler:
    """Rollouts of a model: budget forcing on top of an :class:`~jqlight.sampling.Engine`.

    A rationale is what the model samples until its end-of-thinking string, its end of sequence or the budget. Unless
    it ends in the end-of-thinking string itself, the tokens of that string are forced behind it.

    Attributes:
        engine: draws the tokens.
        token_format: end-of-thinking and end-of-sequence ids.
        config: budgets.
    """

    def __init__(self, engine: Engine, token_format: TokenFormat, config: SamplerConfig) -> None:
        self.engine = engine
        self.token_format = token_format
        self.config = config

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], *, answers: bool, decoding: Decoding
    ) -> list[list[Rollout]]:
        """``len(seeds[i])`` rollouts of prompt ``i``; a rollout depends on its prompt and seed, not on its neighbours.

        Args:
            prompts: token ids, each ending where the model begins to think.
            seeds: one per rollout, see :func:`~jqlight.sampling.rollout_seed`.
            answers: whether an output is sampled behind each rationale (one more engine call).
            decoding: how tokens are sampled, in both phases.
        """
        flat = [(prompt, seed) for prompt, row in zip(prompts, seeds, strict=True) for seed in row]
        rationales = self.engine.generate(
            [Request(prompt, seed, self.config.max_thinking_tokens) for prompt, seed in flat],
            self._end_of_thinking(),
            decoding,
        )
        forced = [[] if self.ends_thinking(t.token_ids) else list(self.token_format.end_ids) for t in rationales]
        replies = [Completion([], [])] * len(flat)
        if answers:
            contexts = [
                [*prompt, *rationale.token_ids, *end]
                for (prompt, _), rationale, end in zip(flat, rationales, forced, strict=True)
            ]
            replies = self.answers(contexts, [answer_seed(seed) for _, seed in flat], decoding)
        rollouts = (
            Rollout(rationale.token_ids, rationale.logprobs, end, list(reply.token_ids), list(reply.logprobs))
            for rationale, end, reply in zip(rationales, forced, replies, strict=True)
        )
        return [[next(rollouts) for _ in row] for row in seeds]

    def answers(self, contexts: Sequence[Sequence[int]], seeds: Sequence[int], decoding: Decoding) -> list[Completion]:
        """One output behind each of ``contexts``: prompt, rationale and end of thinking in token ids."""
        requests = [
            Request(context, seed, self.config.max_answer_tokens) for context, seed in zip(contexts, seeds, strict=True)
        ]
        return self.engine.generate(requests, Stop(self.token_format.eos_ids), decoding)

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Give the engine the policy's weights (checkpoint names); call it after every optimizer step."""
        self.engine.sync(weights)

    def sleep(self) -> None:
        """Have the engine give back its memory until the next :meth:`sync`, before which nothing may be sampled."""
        self.engine.sleep()

    def close(self) -> None:
        """Free the engine's memory; the sampler cannot be used afterwards."""
        self.engine.close()

    def ends_thinking(self, rationale_ids: Sequence[int]) -> bool:
        """Whether the model ended its thinking itself."""
        end_ids = self.token_format.end_ids
        if len(end_ids) == 1:
            return bool(rationale_ids) and rationale_ids[-1] == end_ids[0]
        return self.token_format.has_just_written(self.token_format.thinking.end, rationale_ids)

    def _end_of_thinking(self) -> Stop:
        """A one-token end is matched by id; a longer one by text, since a model may write it in other tokens."""
        end_ids, eos_ids = self.token_format.end_ids, self.token_format.eos_ids
        if len(end_ids) == 1:
            return Stop((*end_ids, *eos_ids))
        return Stop(eos_ids, self.token_format.thinking.end)
