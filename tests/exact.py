"""The coefficients in 60-digit decimal arithmetic, written from the paper's formulas and not from jqlight's code."""

from collections.abc import Sequence
from decimal import Decimal, localcontext

DIGITS = 60


def decimals(log_w: Sequence[float]) -> list[Decimal]:
    """w from log w; a double is taken at its exact value."""
    return [Decimal(0) if x == -float("inf") else Decimal(x).exp() for x in log_w]


def power(base: Decimal, exponent: float) -> Decimal:
    return Decimal(1) if exponent == 0 else Decimal(0) if base == 0 else base ** Decimal(exponent)


def garl(log_w: Sequence[float], q: float, *, baseline: bool, normalize: bool) -> tuple[list[Decimal], list[Decimal]]:
    """Score and pathwise of eq. (12), or of eq. (9) without the baseline."""
    with localcontext() as context:
        context.prec = DIGITS
        w, size = decimals(log_w), len(log_w)
        divisor = size * (power(Decimal(size), q) if normalize else 1)
        amplified = power(sum(w) / size, q)
        pathwise = [x / amplified / divisor for x in w]
        if not baseline:
            return pathwise, pathwise
        others = [sum(w[:m] + w[m + 1 :]) / (size - 1) for m in range(size)]
        return [p - power(o, 1 - q) / divisor for p, o in zip(pathwise, others)], pathwise


def splice(log_w: Sequence[float], tau: float) -> tuple[list[Decimal], list[Decimal]]:
    """Score and pathwise of GARL with A(P) = max(1, tau / P)."""
    with localcontext() as context:
        context.prec = DIGITS
        w, size, limit = decimals(log_w), len(log_w), Decimal(tau)

        def amplification(p: Decimal) -> Decimal:
            return max(Decimal(1), limit / p)

        pathwise = [x * amplification(sum(w) / size) / size for x in w]
        others = [sum(w[:m] + w[m + 1 :]) / (size - 1) for m in range(size)]
        return [p - o * amplification(o) / size for p, o in zip(pathwise, others)], pathwise


def log_leave_one_out(log_w: Sequence[float]) -> list[float]:
    """Logarithm of the mean of the others."""
    with localcontext() as context:
        context.prec = DIGITS
        w = decimals(log_w)
        return [float((sum(w[:m] + w[m + 1 :]) / (len(w) - 1)).ln()) for m in range(len(w))]
