"""A naive reference for the policy's log-probabilities and gradients: full sequences, full logits, autograd."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from jqlight.objective import Coefficients
from jqlight.policy import Continuation, Group, Policy, PolicyConfig

PROMPT = [5, 17, 40, 8, 23, 60, 11, 12]
CONTINUATIONS = [
    Continuation([7, 9, 33, 41, 4], [], [20, 21, 1]),
    Continuation([50, 4], [], [20, 21, 1]),
    Continuation([8, 8, 61, 19, 70, 22, 13, 31, 14], [4], [20, 21, 1]),  # budget ran out: </think> was forced
    Continuation([], [4], [20, 21, 1]),  # nothing was sampled
    Continuation([4], [], [20, 21, 1]),
    Continuation([33], [4, 6], [30, 1]),
    Continuation([50, 4], [], [20, 21, 1]),  # the second one again
]
COEFFICIENTS = Coefficients(
    torch.tensor([0.7, -1.3, 0.4, 0.9, -0.2, 1.1, 0.3], dtype=torch.float64),
    torch.tensor([1.2, 0.5, 0.8, -0.6, 0.1, 0.4, 0.9], dtype=torch.float64),
)
SCALE = 0.5


@dataclass
class Outcome:
    """What a group computes: per-continuation sums (M,) and one gradient per parameter name."""

    log_rationale: Tensor
    log_answer: Tensor
    grads: dict[str, Tensor]


def naive(model: PreTrainedModel, coefficients: Coefficients = COEFFICIENTS) -> Outcome:
    """Every sequence alone, unpadded, all logits, log-softmax in float64, sums written out."""
    model.zero_grad()
    rationale, answer = [], []
    for one in CONTINUATIONS:
        ids = torch.tensor([[*PROMPT, *one.rationale_ids, *one.forced_ids, *one.answer_ids]])
        log_p = model(ids).logits[0].double().log_softmax(-1)
        picked = log_p[:-1].gather(-1, ids[0, 1:, None])[:, 0][len(PROMPT) - 1 :]
        split = len(one.rationale_ids)
        rationale.append(picked[:split].sum())
        answer.append(picked[split + len(one.forced_ids) :].sum())
    z, y = torch.stack(rationale), torch.stack(answer)
    (-SCALE * (coefficients.score * z + coefficients.pathwise * y).sum()).backward()
    return Outcome(z.detach(), y.detach(), gradients(model))


def grouped(policy: Policy, coefficients: Coefficients = COEFFICIENTS) -> Outcome:
    """The same through :class:`Group`: log-weights first, then the gradient, as an estimator does."""
    policy.model.zero_grad()
    group = make_group(policy)
    z, y = group.log_rationale(), group.log_answer()
    group.backward(coefficients, SCALE)
    return Outcome(z, y, gradients(policy.model))


def make_group(policy: Policy) -> Group:
    """The group that all these tests look at."""
    return policy.group(PROMPT, CONTINUATIONS)


def load(path: str, dtype: torch.dtype = torch.float64, share_prompt: bool = True, **fields: object) -> Policy:
    """A loaded policy in ``dtype``; ``fields`` are those of PolicyConfig."""
    policy = Policy(PolicyConfig(path, **fields))
    policy.share_prompt = share_prompt
    policy.load()
    policy.model.to(dtype)
    return policy


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    """Copies of all gradients, float64."""
    return {n: p.grad.detach().double().clone() for n, p in model.named_parameters() if p.grad is not None}


def relative_error(got: dict[str, Tensor], want: dict[str, Tensor]) -> float:
    """Euclidean norm of the difference of two gradients over the norm of the second."""
    assert got.keys() == want.keys()
    difference = sum(float((got[n] - want[n]).square().sum()) for n in want) ** 0.5
    return difference / sum(float(want[n].square().sum()) for n in want) ** 0.5
