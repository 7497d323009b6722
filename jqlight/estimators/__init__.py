"""One LightningModule per gradient estimator; ``base.py`` holds the step they share."""

from jqlight.estimators.base import Estimator
from jqlight.estimators.garl import GARL
from jqlight.estimators.grpo import GRPO
from jqlight.estimators.maxrl import MaxRL
from jqlight.estimators.paft import PAFT
from jqlight.estimators.rft import RFT
from jqlight.estimators.rloo import RLOO
from jqlight.estimators.sft import SFT
from jqlight.quiet import silence_advice

__all__ = ["GARL", "GRPO", "PAFT", "RFT", "RLOO", "SFT", "Estimator", "MaxRL"]

silence_advice()
