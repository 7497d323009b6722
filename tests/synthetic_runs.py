"""Sweeps with made-up metrics, logged through MLflow's client as real runs log theirs: nothing is trained."""

import json
import math
from dataclasses import dataclass

from mlflow.entities import Metric, Param, RunTag

from jqlight.tracking.params import numeric_q

STEPS = range(1, 61)
VALIDATIONS = (20, 40, 60)


@dataclass(frozen=True)
class Fake:
    """One made-up run: success rises along a logistic curve through 1/2 at step ``middle``, or never."""

    estimator: str
    q: str = ""
    seed: int = 0
    middle: int | None = 30
    best: float = 0.8
    benchmark: str = "TwoHop"
    scenario: str = "cold"
    params: tuple[tuple[str, str], ...] = ()
    questions: tuple[float, ...] = ()
    """Score of each question at the best validation, kept as runs keep it; its mean should be ``best``."""
    first_question: int = 0

    @property
    def name(self):
        return "-".join([self.estimator, *([f"q{self.q}"] if self.q else []), f"seed{self.seed}"])

    @property
    def by_question(self):
        return [(f"q{self.first_question + i}", score) for i, score in enumerate(self.questions)]

    def success(self, step):
        return 1e-9 if self.middle is None else 1 / (1 + math.exp(self.middle - step))

    def validation(self, step):
        """Rises with success, then falls a little after step 40."""
        return 0.0 if self.middle is None else self.best * (1.0 if step == 40 else 0.75 if step > 40 else 0.0)


def log_sweep(client, runs, *, experiment="e", name="made_up", sweep_file=None, artifacts=None):
    """Parent run id of a finished sweep with these runs."""
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment, artifact_location=artifacts)
    parent = client.create_run(experiment_id, run_name=name, tags={"jqlight.sweep": name}).info.run_id
    if sweep_file is not None:
        client.log_text(parent, sweep_file, "sweep.yaml")
    for run in runs:
        log_run(client, experiment_id, run, parent)
    client.set_terminated(parent)
    return parent


def log_run(client, experiment_id, run, parent=None):
    tags = {"mlflow.parentRunId": parent} if parent else {}
    run_id = client.create_run(experiment_id, run_name=run.name, tags=tags).info.run_id
    facts = {
        "estimator": run.estimator,
        "q": run.q,
        "benchmark": run.benchmark,
        "scenario": run.scenario,
        "seed": str(run.seed),
    }
    facts = {key: value for key, value in facts.items() if value}
    params = {
        **numeric_q(facts),
        "run_name": run.name,
        **dict(run.params),
        "model.rollouts": "4",
        "data.prompts_per_step": "2",
    }
    metrics = []
    for step in STEPS:
        values = {
            "train/success": run.success(step),
            "train/log_success": math.log(run.success(step)),
            "train/max_amplified_advantage": run.success(step) / 2,
            "train/thinking_tokens": 5.0,
            "time/sample": 0.25,
            "time/score": 0.25,
            "time/update": 0.4,
            "time/sync": 0.1,
        }
        metrics += [Metric(key, value, 1000 * step, step) for key, value in values.items()]
    for step in VALIDATIONS:
        values = {"val/maj_at_16": run.validation(step), "val/exact_maj_at_16": run.validation(step) / 2}
        values |= {"val/pass_at_1": run.validation(step) / 4, "val/pass_at_16": min(1.0, run.validation(step) * 1.1)}
        metrics += [Metric(key, value, 1000 * step, step) for key, value in values.items()]
    for start in range(0, len(metrics), 900):
        client.log_batch(run_id, metrics=metrics[start : start + 900])
    client.log_batch(
        run_id, params=[Param(*item) for item in params.items()], tags=[RunTag(*item) for item in facts.items()]
    )
    if run.questions:
        rows = [{"id": id, "maj_at_16": score} for id, score in run.by_question]
        client.log_text(
            run_id,
            "".join(json.dumps(row) + "\n" for row in rows),
            f"questions/step_{20 if run.middle is None else 40:06d}.jsonl",
        )
    client.set_terminated(run_id)
    return run_id
