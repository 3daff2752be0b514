"""What both training tests hold against the official code: norms, gradients and weights after a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.golden.cases import Case, off_by
from torch import Tensor, nn

Find = Callable[[str], nn.Parameter]
MOVED = 0.05  # of the learning rate: Adam's first step is its sign wherever a gradient is not exactly zero


def check_norms(find: Find, norms: Mapping[str, float], tolerance: float, least: float) -> None:
    """Each gradient's norm, where it is more than `least` of the largest."""
    largest = max(norms.values())
    for name, want in norms.items():
        if want > least * largest:
            got = find(name).grad.norm().item()
            assert abs(got - want) < tolerance * want, f"{name}: {got}, expected {want}"


def check_gradients(find: Find, case: Case, tolerance: float) -> None:
    """Whole gradients, but for those that are rounding alone, as of keys where there is one token to attend to."""
    wanted = case.under("grad.")
    nothing = 1e-5 * max(float(want.norm()) for want in wanted.values())
    for name, want in wanted.items():
        got = find(name).grad
        assert off_by(got, want) < tolerance or max(got.norm(), want.norm()) < nothing, name


def check_weights(find: Find, wanted: Mapping[str, Tensor], lr: float, share: float) -> None:
    """All but a share of the values of each weight lie within a small part of a step."""
    for name, want in wanted.items():
        off = (find(name).detach() - want).abs() > MOVED * lr
        assert off.float().mean() <= share or off.sum() <= 1, f"{name}: {off.float().mean():.3f}"
