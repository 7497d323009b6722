"""A policy with its sampling engine and its evaluator as a LightningModule: validation, test and predict."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from lightning import LightningModule
from lightning.pytorch import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn

from jqlight.benchmarks import Benchmark, Example
from jqlight.benchmarks.evaluator import Evaluator
from jqlight.errors import ConfigError
from jqlight.estimators import distributed
from jqlight.estimators.kept_rollouts import rollout_facts
from jqlight.estimators.necessity import Necessity, means
from jqlight.estimators.placement import check_placement
from jqlight.model_folder import check_weights
from jqlight.names import majority
from jqlight.policy import Policy, PolicyConfig
from jqlight.policy.memory import pending_state
from jqlight.sampling import Decoding, Rollout, Sampler, SamplerConfig, build_sampler, rollout_seed
from jqlight.sampling.vllm.process import assert_world
from jqlight.startup import mark
from jqlight.token_format import TokenFormat

log = logging.getLogger(__name__)

MOST_ROLLOUTS = 100_000
"""Largest number of rollouts or samples a prompt; a slip of the keyboard beyond it would fill the memory first."""
DEFAULT_OPTIMIZER = partial(torch.optim.AdamW, lr=5e-6, betas=(0.9, 0.95), weight_decay=0.0)
"""What trains where no optimizer is given: that of conf/."""


class PolicyModule(LightningModule):
    """The life of policy, engine and evaluator: everything that is not the training step.

    Args:
        policy: the trained causal language model.
        sampler: the engine and its budgets.
        samples: samples per prompt in evaluation, the k of pass@k and maj@k.
        optimizer: makes the optimizer of the trainable parameters; None for ``DEFAULT_OPTIMIZER``. The command line has
            a section of its own for it.
        lr_scheduler: makes the schedule of that optimizer, moved on after every step; None for none. Likewise.

    Attributes:
        benchmark: the data that the trainer was given, once a run has begun.
        unused_tensors: of the model's folder, which its config has no use for; likewise.
        run_seed: seed of everything sampled: what ``seed_everything`` set, else 0; may be assigned in a script.

    Raises:
        ConfigError: samples below 1 or above ``MOST_ROLLOUTS``.
    """

    benchmark: Benchmark
    samples_answers: bool = True
    """Whether training draws an answer behind each rationale."""

    def __init__(
        self,
        policy: PolicyConfig,
        sampler: SamplerConfig,
        *,
        samples: int = 16,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        lr_scheduler: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        check_count("samples", samples)
        self.policy = Policy(policy)
        self.sampler_config = sampler
        self.sampler: Sampler | None = None
        self.evaluator: Evaluator | None = None
        self.necessity: Necessity | None = None
        self.samples = samples
        self.optimizer: Callable[..., torch.optim.Optimizer] = optimizer or DEFAULT_OPTIMIZER
        self.lr_scheduler = lr_scheduler
        self._run_seed: int | None = None
        self._numbers: int | None = None
        self.unused_tensors = 0

    @property
    def one_optimizer(self) -> LightningOptimizer:
        """The optimizer, as Lightning wraps it; its own accessor is annotated for any number of them."""
        return cast(LightningOptimizer, self.optimizers())

    @property
    def token_format(self) -> TokenFormat:
        """The output format in the policy's own token ids; needs the tokenizer's files only."""
        return self.policy.format

    @property
    def run_seed(self) -> int:
        """Seed of everything sampled."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0)) if self._run_seed is None else self._run_seed

    @run_seed.setter
    def run_seed(self, seed: int) -> None:
        self._run_seed = int(seed)

    # -- the start of a run ------------------------------------------------------------------------------------------

    def configure_callbacks(self) -> list[Callback]:
        """Bind data and module to each other, the one place where they meet.

        Lightning calls this on every process before it lets the data read their files, which need the tokenizer.

        Raises:
            ConfigError: the trainer was given no :class:`jqlight.benchmarks.Benchmark`, or a strategy or device that
                nothing would be right on.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, Benchmark):
            given = "none" if data is None else type(data).__name__
            raise ConfigError(
                f"data: given {given}, allowed is a Benchmark, which knows its verifiers and makes token ids; "
                "docs/howto/own-data.md shows one in ten lines"
            )
        check_placement(self.trainer, self.sampler_config)
        if isinstance(self.trainer.strategy, DDPStrategy):
            distributed.leave_unwrapped(self.trainer.strategy)
        data.check_path()
        self.benchmark = data.bind(
            self.token_format,
            self.run_seed,
            self.sampler_config.max_answer_tokens,
            trains_on_answers=self.samples_answers,
        )
        self._numbers, self.unused_tensors = check_weights(self.policy.path)
        return []

    def setup(self, stage: str) -> None:
        """Start the engine and build the evaluator.

        The engine comes before the policy's weights, since engines measure free memory when they start, and after
        Lightning's process group, which they would otherwise create with one rank.
        """
        if self.trainer.precision not in ("32-true", "bf16-mixed"):
            raise ConfigError(
                f"trainer.precision: given {self.trainer.precision}, allowed are 32-true and bf16-mixed; the format of "
                "the weights is policy.dtype"
            )
        if stage == "fit":
            _warn_of_two_byte_weights(self.policy.config)
        if self.sampler is None:
            assert_world(self.trainer.world_size)
            self.start_sampler(self.benchmark, self.device)
            mark("engine")
        if self.evaluator is None:
            self.build_evaluator(self.benchmark)

    def build_evaluator(self, benchmark: Benchmark) -> None:
        """Build what counts the samples of validation and test."""
        self.evaluator = Evaluator(
            benchmark.verifiers, self.samples, benchmark.normalise, benchmark.rationale_verifiers
        )
        if benchmark.necessity:
            assert self.sampler is not None, "start_sampler() comes before"
            self.necessity = Necessity(self.policy, self.sampler, benchmark.verifiers, self.run_seed)

    def start_sampler(self, benchmark: Benchmark, device: torch.device | None = None) -> None:
        """Start the engine on the policy's folder, with room for the benchmark's prompts.

        ``device`` is the trainer's, which an engine follows; without a trainer None, see :func:`build_sampler`.
        """
        self.sampler = build_sampler(
            self.sampler_config,
            model_path=self.policy.path,
            dtype=self.policy.config.dtype,
            token_format=self.token_format,
            max_prompt_tokens=benchmark.max_prompt_tokens,
            device=device,
        )

    def configure_model(self) -> None:
        """Load the policy's weights, once."""
        self.policy.load()
        mark("model")

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **settings: Any) -> Any:
        """As ever, but weights of another model are refused in one sentence.

        Raises:
            ConfigError: names or shapes are not this model's.
        """
        try:
            return super().load_state_dict(state_dict, *args, **settings)
        except RuntimeError as error:
            why = " ".join(str(error).partition("\n")[2].split())
            raise ConfigError(
                f"ckpt_path: the checkpoint's weights are not those of policy.name_or_path {self.policy.path} with its "
                f"policy.lora ({why[:200]}); give those that the run was trained with"
            ) from error

    def configure_optimizers(self) -> Any:
        """The optimizer of the trainable parameters and, where there is one, its schedule."""
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        optimizer = self.optimizer(trained)
        # What undoes a step is a copy in host memory, which is the trainer's own on a CPU.
        copies = 2 if self.device.type == "cpu" else 1
        self.policy.pending_bytes = lambda: pending_state(optimizer, trained, copies=copies)
        if self.lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"},
        }

    # -- sampling ----------------------------------------------------------------------------------------------------

    def sample(
        self, batch: Sequence[Example], stage: str, n: int, *, step: int = 0, answers: bool = True
    ) -> list[list[Rollout]]:
        """``n`` rollouts per example; each one's seed is a function of (run seed, stage, step, example id, m) alone."""
        assert self.sampler is not None, "setup() builds the sampler"
        # Training rollouts are samples of the policy itself, whatever evaluation does.
        decoding = Decoding() if stage == "train" else self.sampler_config.evaluation
        seeds = [[rollout_seed(self.run_seed, stage, step, e.id, m) for m in range(n)] for e in batch]
        return self.sampler.sample([e.prompt_ids for e in batch], seeds, answers=answers, decoding=decoding)

    def sync_engine(self) -> None:
        """Give the engine the policy's weights."""
        assert self.sampler is not None, "setup() builds the sampler"
        self.sampler.sync(self.policy.weights())

    # -- evaluation --------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Give the engine the weights that training starts from: the base model's, or a checkpoint's."""
        self.sync_engine()

    def on_validation_start(self) -> None:
        """Outside of fit nothing else has synced the engine since a checkpoint was loaded."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self.sync_engine()
        assert self.evaluator is not None, "setup() builds the evaluator"
        self.evaluator.reset()
        if self.necessity is not None:
            self.necessity.reset()

    on_test_start = on_validation_start

    def on_predict_start(self) -> None:
        """Give the engine the weights to predict with."""
        self.sync_engine()

    def _evaluate(self, batch: list[Example], stage: str) -> None:
        assert self.evaluator is not None, "setup() builds the evaluator"
        rollouts = self.sample(batch, stage, self.samples)
        answers = [[self.token_format.decode_answer(r.answer_ids) for r in group] for group in rollouts]
        rationales = [[self.token_format.decode(r.rationale_ids) for r in group] for group in rollouts]
        facts = [[rollout_facts(r, self.token_format) for r in group] for group in rollouts]
        self.evaluator.update(batch, answers, rationales, facts)
        if self.necessity is not None:
            self.necessity.update(batch, rollouts)

    def results(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Metrics of what was evaluated, by name, and each question's values of them, with its id, sorted by it.

        Both are over all ranks, each of which must call it.
        """
        assert self.evaluator is not None, "setup() builds the evaluator"
        scores = {name: float(value) for name, value in self.evaluator.compute().items()}
        rows = [row for rank in distributed.gathered(self.evaluator.questions()) for row in rank]
        if self.necessity is not None:
            needs = {values["id"]: values for values in self.necessity.questions()}
            scores |= means(list(needs.values()))
            rows = [row | needs[row["id"]] for row in rows]
        return scores, sorted(rows, key=lambda row: str(row["id"]))

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
        with self.trainer.precision_plugin.val_step_context():
            found, questions = self.results()
        scores = {f"{stage}/{name}": value for name, value in found.items()}
        headline = f"{stage}/{majority(self.samples)}"
        # The evaluator has reduced over ranks; sync_dist is for Lightning, which warns wherever a process group exists.
        self.log(headline, scores[headline], prog_bar=True, sync_dist=True)
        self.log_dict({name: value for name, value in scores.items() if name != headline}, sync_dist=True)
        for logger in self.trainer.loggers:
            if self.trainer.sanity_checking:
                # Lightning logs nothing in this evaluation, which here gives the scores that training starts from.
                logger.log_metrics(scores, step=self.global_step)
            if hasattr(logger, "log_questions"):
                logger.log_questions(stage, self.global_step, questions)
        self.log_samples(stage, self.evaluator.rows())

    def log_samples(self, stage: str, rows: list[dict[str, Any]]) -> None:
        """Give the loggers that keep samples those of all ranks."""
        keeping = [logger for logger in self.trainer.loggers if hasattr(logger, "log_samples")]
        if keeping:
            everywhere = [row for part in distributed.gathered(rows) for row in part]
            for logger in keeping:
                logger.log_samples(stage, self.global_step, everywhere)

    def on_validation_epoch_end(self) -> None:
        """Log the scores and a table of samples."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores and a table of samples."""
        self._report("test")


def check_count(name: str, value: int) -> None:
    """Refuse a number of rollouts or samples that no group can have."""
    if not 1 <= value <= MOST_ROLLOUTS:
        raise ConfigError(
            f"model.{name}: given {value}, allowed is 1 or more, up to {MOST_ROLLOUTS}: all of a prompt's are held in "
            "memory at once"
        )


def _warn_of_two_byte_weights(policy: PolicyConfig) -> None:
    """bfloat16 keeps 8 bits of a weight: an AdamW step of 5e-6 is below half of the last one and rounds to nothing."""
    if policy.lora is None and policy.dtype != "float32":
        log.warning(
            "policy.dtype: given %s, in which most weights do not move at usual learning rates, as a step is smaller "
            "than their last digit; give policy.dtype: float32, trainer.precision: bf16-mixed and "
            "sampler.dtype: bfloat16 instead",
            policy.dtype,
        )
