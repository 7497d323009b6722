"""The scores of a run's validations, for what is said at its end."""

import re
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

# Every verifier's majority vote; pass@k for the paper's rule and exact match alone.
_KEPT = re.compile(
    r"val/(\w*maj_at_\d+|(exact_)?(pass_at_\d+|own_accuracy|necessity_\w+)|tie_rate|unanswered_rate|gain|"
    r"empty_rationales|thinking_tokens)"
)


class ValidationScores(Callback):
    """Keeps each validation's scores, also over a resume.

    Attributes:
        by_step: optimizer step -> metric -> score, in order; step 0 is the base model.
    """

    def __init__(self) -> None:
        self.by_step: dict[int, dict[str, float]] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the scores of this validation; the one before the first step counts too."""
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if _KEPT.fullmatch(name)}
        if scores:
            self.by_step[trainer.global_step] = scores

    def state_dict(self) -> dict[str, Any]:
        """Everything, in a checkpoint."""
        return {"by_step": self.by_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.by_step = dict(state_dict["by_step"])
