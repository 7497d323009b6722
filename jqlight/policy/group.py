"""One prompt and its continuations: log-probabilities and the gradient of their weighted sum."""

from collections.abc import Sequence

import torch
from torch import Tensor

from jqlight.objective import Coefficients
from jqlight.policy.batching import ANSWER, RATIONALE, Budget, Continuation, build_rows, padded_cost, plan
from jqlight.policy.forward import Network, Prompt


class Group:
    """A prompt x* with M continuations z_m, y_m, as :meth:`Policy.group` hands it out.

    The prompt runs through the model once, forward and backward, for any M: its keys, values and first log-probs
    are cut out of the graph as leaves, micro-batches of continuations run against them, and when the last one has left
    its gradient there the prompt's own backward follows. This is the chain rule, not an approximation. Where the
    architecture cannot share, whole sequences are run instead.

    A group that fits in the token budget keeps the graph of the pass that gave the log-probabilities, and
    :meth:`backward` uses it. A larger one is scored without a graph and recomputed, micro-batch by micro-batch, with
    the rows whose coefficients are not zero. A kept micro-batch of which few rows are needed (PAFT) is dropped and
    recomputed when that is cheaper: 3 units of work per token of the needed rows (forward, and a backward of twice its
    cost) against 2 per token of all its rows. Identical continuations run once, their coefficients added.
    """

    def __init__(
        self, network: Network, budget: Budget, prompt_ids: Sequence[int], continuations: Sequence[Continuation]
    ) -> None:
        self._network = network
        self.budget = budget
        device = network.model.device
        self._prompt_ids = torch.tensor(list(prompt_ids), dtype=torch.long, device=device)
        self._rows = build_rows(continuations, device)
        # Prompt and row in one pass where no other row shares the prompt.
        self._share = network.route.share and len(self._rows.lengths) > 1
        self._prompt: Prompt | None = None
        self._kept: list[tuple[list[int], Tensor]] = []
        self._values = torch.zeros(self._rows.tokens.shape, dtype=torch.float64, device=device)
        self._known = [length == 0 for length in self._rows.lengths]
        self._spent = False

    @property
    def tokens(self) -> float:
        """What all of the group, run at once, would take of a token budget."""
        return len(self._prompt_ids) + self._cost(self._plan(range(len(self._rows.lengths))))

    @property
    def fits(self) -> bool:
        """Whether the whole group fits in the budget, so that its graph can be kept."""
        return self.tokens <= self.budget.tokens

    def log_rationale(self) -> Tensor:
        """log p(z_m | x*), (M,) float64 nats, detached: the sum over sampled tokens; forced ones have no part in it."""
        return self._sum(RATIONALE)

    def log_answer(self) -> Tensor:
        """log p(y_m | x*, z_m), (M,) float64 nats, detached: the sum over separator, answer and end of sequence."""
        return self._sum(ANSWER)

    def token_logprobs(self) -> list[Tensor]:
        """log p of every scored token: M tensors, (rationale + answer tokens,) float64 nats, detached."""
        self._score()
        scored = self._rows.kind > 0
        parts = self._values[scored].split(scored.sum(1).tolist())
        return [parts[row] for row in self._rows.inverse.tolist()]

    def backward(self, coefficients: Coefficients, scale: float) -> None:
        """Add the gradient of ``-scale * sum_m [score_m log p(z_m|x*) + pathwise_m log p(y_m|x*, z_m)]`` to ``.grad``.

        Rows with two zero coefficients are not run; a group of such rows does nothing. Collective operations have no
        part in it: under data parallelism ranks may call it unequally often, and average ``.grad`` afterwards.

        Args:
            coefficients: score and pathwise, (M,) each; see Lin & Ie (2026), eqs. (9), (12) and (14).
            scale: factor of the whole group, 1 / number of prompts for a mean over them.

        Raises:
            RuntimeError: called twice.
        """
        if self._spent:
            raise RuntimeError("Group.backward was called before; a group's graph serves one backward")
        self._spent = True
        weights = self._token_weights(coefficients, scale)
        live = (weights != 0).any(1).tolist()
        todo = {row for row, alive in enumerate(live) if alive}
        if todo:
            self._open_prompt(graph=True)
            kept, self._kept = self._kept, []
            while kept:
                rows, log_p = kept.pop()
                needed = [row for row in rows if live[row]]
                if 2 * self._cost([rows]) <= 3 * self._cost(self._plan(needed)):
                    self._propagate(rows, log_p, weights)
                    todo.difference_update(rows)
                del log_p  # before anything is recomputed
            for rows in self._plan(sorted(todo)):
                self._propagate(rows, self._forward(rows), weights)
            self._close_prompt(weights)
        self._kept = []
        if self._prompt is not None:
            self._prompt.release()

    def _sum(self, kind: int) -> Tensor:
        self._score()
        return (self._values * (self._rows.kind == kind)).sum(1)[self._rows.inverse]

    def _score(self) -> None:
        """Know the log-probabilities of all rows; keep the graph if a backward can follow and everything fits."""
        missing = [row for row, known in enumerate(self._known) if not known]
        if not missing:
            return
        batches = self._plan(missing)
        fits = len(self._prompt_ids) + self._cost(batches) <= self.budget.tokens
        graph = torch.is_grad_enabled() and not self._spent
        self._open_prompt(graph=graph)
        if fits and graph:
            self._kept = [(rows, self._forward(rows)) for rows in batches]
            return
        with torch.no_grad():
            for rows in batches:
                self._forward(rows)
        # Older torch caches weights that autocast has cast here without a graph, and the next pass would lose their
        # gradients (PyTorch issue 112583).
        torch.clear_autocast_cache()

    def _open_prompt(self, *, graph: bool) -> None:
        """Run the prompt, unless that was done already and with the graph that is needed now."""
        if self._share and (self._prompt is None or (graph and not self._prompt.has_graph)):
            with torch.set_grad_enabled(graph):
                self._prompt = self._network.prompt(self._prompt_ids)

    def _forward(self, rows: list[int]) -> Tensor:
        """log p of the scored tokens of ``rows`` with the graph of the current mode, (N,); notes their values."""
        width = max(self._rows.lengths[row] for row in rows)
        tokens, kind = self._rows.tokens[rows, :width], self._rows.kind[rows, :width]
        scored = self._graph_tokens(kind)
        if self._prompt is None:
            log_p = self._network.sequences(self._prompt_ids, tokens, scored)
        else:
            log_p = self._network.continuations(tokens, scored, self._prompt)
        values = torch.zeros(kind.shape, dtype=torch.float64, device=kind.device)
        values[scored] = log_p.detach().double()
        if self._prompt is not None:
            values[:, 0] = self._prompt.first.detach().double()[tokens[:, 0]] * (kind[:, 0] > 0)
        self._values[rows, :width] = values
        for row in rows:
            self._known[row] = True
        return log_p

    def _graph_tokens(self, kind: Tensor) -> Tensor:
        """Which tokens a micro-batch returns: the scored ones, but behind a shared prompt not the first of a row."""
        scored = kind > 0
        if self._prompt is not None:
            scored[:, 0] = False
        return scored

    def _propagate(self, rows: list[int], log_p: Tensor, weights: Tensor) -> None:
        """Backward of one micro-batch, down to the parameters and the prompt's leaves."""
        if not log_p.requires_grad:  # no token behind the first ones
            return
        width = max(self._rows.lengths[row] for row in rows)
        scored = self._graph_tokens(self._rows.kind[rows, :width])
        log_p.backward(weights[rows, :width][scored].to(log_p.dtype))

    def _token_weights(self, coefficients: Coefficients, scale: float) -> Tensor:
        """d loss / d log p of every token, (U, L) float64; coefficients of identical continuations are added."""
        kind, inverse = self._rows.kind, self._rows.inverse
        weights = torch.zeros(kind.shape, dtype=torch.float64, device=kind.device)
        for value, values in ((RATIONALE, coefficients.score), (ANSWER, coefficients.pathwise)):
            row = torch.zeros(len(kind), dtype=torch.float64, device=kind.device)
            row.index_add_(0, inverse, -scale * values.detach().to(row))
            weights += torch.where(kind == value, row[:, None], 0.0)
        return weights

    def _close_prompt(self, weights: Tensor) -> None:
        """Backward of the prompt: what its leaves have gathered, and the first token of every row."""
        if self._prompt is None:
            return
        first = self._prompt.first
        if first.requires_grad:
            grad = torch.zeros(len(first), dtype=torch.float64, device=first.device)
            grad.index_add_(0, self._rows.tokens[:, 0], weights[:, 0])
            first.grad = grad.to(first.dtype)
        self._prompt.backward()

    def _row_extra(self) -> float:
        """Tokens' worth of memory that a row costs on top of its own tokens."""
        share = self.budget.copy_share if self._share else 1.0
        return share * len(self._prompt_ids)

    def _plan(self, rows: Sequence[int]) -> list[list[int]]:
        lengths = [self._rows.lengths[row] for row in rows]
        batches = plan(lengths, self.budget.tokens, extra=self._row_extra())
        return [[rows[i] for i in batch] for batch in batches]

    def _cost(self, batches: Sequence[Sequence[int]]) -> float:
        return padded_cost(batches, self._rows.lengths, extra=self._row_extra())
