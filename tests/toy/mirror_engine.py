"""An engine of another package: it enlarges a picture by repetition and mirrors it. One spec, one class."""

from __future__ import annotations

from dataclasses import dataclass

from srcli.engines.base import Canvas, EngineSpec, TaskSupport, VariantProfile
from srcli.engines.runtime.forecast import Forecast
from srcli.sampling.hint import to_unit_float
from srcli.settings import Sampling
from srcli.tasks import UPSCALE


def forecast(choice, job, size, device):
    return Forecast("mirror", job.target(*size), 1, 1, None, 1, flop=1e6, memory=1 << 20)


SPEC = EngineSpec(
    name="mirror",
    title="the mirror",
    about="mirrors pictures",
    needs="",
    tasks={UPSCALE.name: TaskSupport()},
    profile=VariantProfile(defaults=Sampling()),
    load=lambda choice, device, store: Mirror(),
    forecast=forecast,
)


@dataclass(frozen=True)
class Mirror:
    spec: EngineSpec = SPEC
    variant: str | None = None
    factor: int = 1
    block: int | None = None
    halo: int = 0
    supported_savings: tuple[str, ...] = ()

    def passes(self, size, target):
        return [target]

    def working_size(self, size, target, request):
        return target

    def layout(self, height, width, sampling):
        return None

    def prepare(self, hint, request):
        picture = to_unit_float(hint)
        return Canvas(picture, hint, None, None, lambda x: x.flip(3))

    def provenance(self):
        return {"model": "none"}
