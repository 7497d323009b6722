"""What a run that learns nothing says, once, on the screen and as tags of the run."""

from collections.abc import Mapping

from lightning import LightningModule

from jqlight.escape import StallMonitor

_SMALLEST_UPDATE = 0.01
"""``train/update_size`` under which a step counts as none. Healthy runs have 0.1 to 1."""

_NOTHING_LEARNT = {
    "signal": "no group had a signal: its rewards are all alike, or no rationale gives the gold answer any probability "
    "that a number can hold. Ways out: questions that it can answer sometimes, more model.rollouts, or GARL with a "
    "larger model.q",
    "gradient": "the gradient was exactly zero (train/grad_norm). Ways out: a smaller optimizer.lr from the start, "
    "--model.scale batch (GARL and PAFT), or a larger model.q",
    "update": "weights have hardly moved (train/update_size): the gradient is below the optimizer's epsilon. Ways out: "
    "--model.scale batch (GARL and PAFT), a larger model.q, or a smaller optimizer.eps",
}
"""Each of them implies those behind it, so that the first says it all."""

_THINKING = {
    "empty": "every rationale was empty: thinking ends as soon as it begins",
    "truncated": "every rationale ran out of its budget (train/truncated); raise sampler.max_thinking_tokens, or "
    "check that policy.thinking.end is what the model writes",
}


class Alarms:
    """Watches a run's steps for what no healthy run does for long.

    Attributes:
        monitor: counts the steps in a row.
    """

    def __init__(self) -> None:
        self.monitor = StallMonitor()

    def update(self, module: LightningModule, values: Mapping[str, float], *, alive: bool, empty: bool) -> None:
        """Take in a step, and say what has now lasted for ten.

        Args:
            module: says it.
            values: metrics of the step, over all ranks.
            alive: whether any coefficient was not zero.
            empty: whether every sampled rationale was.
        """
        still = values.get("train/update_size", 1.0) < _SMALLEST_UPDATE
        begun = self.monitor.update(
            {
                "signal": not alive,
                "gradient": values["train/grad_norm"] == 0,
                "update": still,
                "empty": empty,
                "truncated": values["train/truncated"] == 1,
            }
        )
        lasting = [name for name in _NOTHING_LEARNT if self.monitor.steps[name] >= self.monitor.window]
        for name in begun:
            if name in _THINKING:
                self._tell(module, name, f"for {self.monitor.window} steps {_THINKING[name]}.")
            elif name == lasting[0]:
                why = f"For {self.monitor.window} steps {_NOTHING_LEARNT[name]}."
                self._tell(module, name, f"nothing is being learnt. {why}")

    def _tell(self, module: LightningModule, name: str, sentence: str) -> None:
        told = f"step {module.global_step}: {sentence}"
        module.print(told)
        for logger in module.trainer.loggers:
            if hasattr(logger, "log_tags"):
                logger.log_tags({f"alarm.{name}": told})
