"""Validation, test and predict: one evaluator, fed by the same sampler as training."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn

from jqlight.benchmarks import Benchmark, Example
from jqlight.benchmarks.evaluator import Evaluator
from jqlight.errors import ConfigError
from jqlight.names import majority
from jqlight.policy import Policy, PolicyConfig
from jqlight.sampling import Rollout, Sampler, SamplerConfig, build_sampler
from jqlight.sampling.vllm.process import assert_world
from jqlight.startup import mark
from jqlight.token_format import TokenFormat

log = logging.getLogger(__name__)


class EvaluationMixin(LightningModule, ABC):
    """The life of policy, engine and evaluator around the training step of an ``Estimator``."""

    policy: Policy
    sampler: Sampler | None
    sampler_config: SamplerConfig
    samples: int
    evaluator: Evaluator | None

    @property
    @abstractmethod
    def token_format(self) -> TokenFormat:
        """The output format in the policy's own token ids."""

    @abstractmethod
    def sample(
        self, batch: Sequence[Example], stage: str, n: int, *, step: int = 0, answers: bool = True
    ) -> list[list[Rollout]]:
        """``n`` rollouts per example."""

    @abstractmethod
    def sync_engine(self) -> None:
        """Give the engine the policy's weights."""

    @property
    def run_seed(self) -> int:
        """Seed of all sampling: the ``seed`` setting, else what ``seed_everything`` set, else 0."""
        seed = getattr(self, "seed", None)
        return int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else int(seed)

    def setup(self, stage: str) -> None:
        """Start the engine and build the evaluator.

        The engine comes before the policy's weights, since engines measure free memory when they start, and after
        Lightning's process group, which they would otherwise create with one rank.
        """
        benchmark: Benchmark = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.trainer.precision not in ("32-true", "bf16-mixed"):
            raise ConfigError(
                f"trainer.precision: given {self.trainer.precision}, allowed are 32-true and bf16-mixed; the format of "
                "the weights is policy.dtype"
            )
        if stage == "fit":
            _warn_of_two_byte_weights(self.policy.config)
        if self.sampler is None:
            assert_world(self.trainer.world_size)
            self.sampler = build_sampler(
                self.sampler_config,
                model_path=self.policy.path,
                dtype=self.policy.config.dtype,
                token_format=self.token_format,
                max_prompt_tokens=benchmark.max_prompt_tokens,
            )
            mark("engine")
        if self.evaluator is None:
            self.evaluator = Evaluator(benchmark.verifiers, self.samples, benchmark.normalise)

    def configure_model(self) -> None:
        """Load the policy's weights, once."""
        self.policy.load()
        mark("model")

    def on_fit_start(self) -> None:
        """Give the engine the weights that training starts from: the base model's, or a checkpoint's."""
        self.sync_engine()

    def on_validation_start(self) -> None:
        """Outside of fit nothing else has synced the engine since a checkpoint was loaded."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self.sync_engine()
        assert self.evaluator is not None, "setup() builds the evaluator"
        self.evaluator.reset()

    on_test_start = on_validation_start

    def on_predict_start(self) -> None:
        """Give the engine the weights to predict with."""
        self.sync_engine()

    def _evaluate(self, batch: list[Example], stage: str) -> None:
        assert self.evaluator is not None, "setup() builds the evaluator"
        rollouts = self.sample(batch, stage, self.samples)
        answers = [[self.token_format.decode_answer(r.answer_ids) for r in group] for group in rollouts]
        rationales = [[self.token_format.decode(r.rationale_ids) for r in group] for group in rollouts]
        self.evaluator.update(batch, answers, rationales)

    def validation_step(self, batch: list[Example], batch_idx: int) -> None:
        """Sample and verify a batch of validation prompts."""
        self._evaluate(batch, "val")

    def test_step(self, batch: list[Example], batch_idx: int) -> None:
        """Sample and verify a batch of test prompts."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: list[Example], batch_idx: int) -> list[dict[str, Any]]:
        """Samples of a batch as rows: id, prompt, references, and per sample rationale and answer."""
        decode = self.token_format
        return [
            {
                "id": example.id,
                "prompt": example.prompt,
                "references": list(example.references),
                "rationales": [decode.decode(r.rationale_ids) for r in rollouts],
                "answers": [decode.decode_answer(r.answer_ids) for r in rollouts],
            }
            for example, rollouts in zip(batch, self.sample(batch, "predict", self.samples), strict=True)
        ]

    def _report(self, stage: str) -> None:
        assert self.evaluator is not None, "setup() builds the evaluator"
        scores = {f"{stage}/{name}": float(value) for name, value in self.evaluator.compute().items()}
        headline = f"{stage}/{majority(self.samples)}"
        # The evaluator has reduced over ranks; sync_dist is for Lightning, which warns wherever a process group exists.
        self.log(headline, scores[headline], prog_bar=True, sync_dist=True)
        self.log_dict({name: value for name, value in scores.items() if name != headline}, sync_dist=True)
        for logger in self.trainer.loggers:
            if self.trainer.sanity_checking:
                # Lightning logs nothing in this evaluation, which here gives the scores that training starts from.
                logger.log_metrics(scores, step=self.global_step)
            if hasattr(logger, "log_samples"):
                logger.log_samples(stage, self.global_step, self.evaluator.rows())

    def on_validation_epoch_end(self) -> None:
        """Log the scores and a table of samples."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores and a table of samples."""
        self._report("test")


def _warn_of_two_byte_weights(policy: PolicyConfig) -> None:
    """bfloat16 keeps 8 bits of a weight: an AdamW step of 5e-6 is below half of the last one and rounds to nothing."""
    if policy.lora is None and policy.dtype != "float32":
        log.warning(
            "policy.dtype: given %s, in which most weights do not move at usual learning rates, as a step is smaller "
            "than their last digit; give policy.dtype: float32, trainer.precision: bf16-mixed and "
            "sampler.dtype: bfloat16 instead",
            policy.dtype,
        )
