"""The product's engine, given the official noise, against what the official script makes of the same patch."""

from dataclasses import dataclass

import pytest
import torch
from tests.golden.cases import Case, each, off_by
from tests.golden.stablesr_official import CanvasScript, fixed
from tests.golden.stablesr_tiny import StableSR as Nets
from tests.golden.stablesr_tiny import led, tiny
from tests.golden.test_stablesr_sampling import END, same_picture
from torch import Tensor

from srcli.engines.base import Request
from srcli.engines.latent.bases import Base
from srcli.engines.latent.codec import Codec
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import AMPLE
from srcli.engines.runtime.oom_fallback import MemorySavings
from srcli.engines.stablesr import engine as stablesr
from srcli.engines.stablesr.spec import SPEC
from srcli.engines.stablesr.weights import STABLESR_VARIANTS, StableSRNetworks
from srcli.sampling.noise import POSTERIOR_NOISE, START_NOISE
from srcli.sampling.sampler import Tiled, run_sampler
from srcli.settings import Prompt, Sampling
from srcli.tasks import UPSCALE

CPU = Device(torch.device("cpu"), torch.float32)


@dataclass(frozen=True)
class Given:
    """The noise of a case, in the place of a noise field."""

    tensors: dict[str, Tensor]

    def draw(self, shape: tuple[int, ...], step: int = 0) -> Tensor:
        named = {POSTERIOR_NOISE: "z_noise", START_NOISE: "x_noise"}
        found = self.tensors[named[step]] if step in named else self.tensors["step_noise"][step - 1]
        assert found.shape == tuple(shape)
        return found


@dataclass(frozen=True)
class Told:
    """A text encoder that knows one embedding."""

    context: Tensor

    def with_less(self, savings: MemorySavings) -> "Told":
        return self

    def encode(self, texts: list[str]) -> Tensor:
        assert texts == [""], "StableSR is asked without words"
        return self.context


@dataclass(frozen=True)
class Fusion:
    net: object
    weights_used: tuple = ()


def engine(nets: Nets, context: Tensor) -> stablesr.StableSREngine:
    base = Base(nets.vae, None, None, {}, None, "tiny", {})
    loaded = StableSRNetworks(
        nets.unet, nets.encoder, nets.modulation, base, STABLESR_VARIANTS["512"], Fusion(nets.wrapping), {}
    )
    return stablesr.StableSREngine(loaded, Codec.of(nets.vae, CPU), Told(context), CPU, AMPLE)


@each("stablesr", "v12*")
@torch.inference_mode()
def test_the_engine_is_the_official_script_on_one_patch(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, tensors = case.notes, case.tensors
    script = CanvasScript(notes, tensors, led(tensors["context"]))
    finals: list[Tensor] = []

    def patch(picture: Tensor) -> Tensor:
        """The product on what the script cut out for itself."""
        made = engine(tiny(), tensors["context"])
        given = Sampling(
            fidelity=notes["dec_w"],
            steps=notes["ddpm_steps"],
            tile=notes["input_size"] // 8,
            overlap=notes["tile_overlap"],
        )
        sampling = SPEC.complete_sampling(given, "512")
        hint = picture / 2 + 0.5
        canvas = made.prepare(hint, Request(UPSCALE, sampling, Prompt(), Given(dict(tensors))))
        layout = made.layout(*canvas.start.shape[-2:], sampling)
        denoiser = canvas.denoiser if layout is None else Tiled(canvas.denoiser, *layout)
        finals.append(run_sampler(denoiser, canvas.scheduler, canvas.start, canvas.hint, Given(dict(tensors))))
        # The official colour fix works on -1..1, where the AdaIN's epsilon weighs a quarter of what it does on 0..1.
        return fixed(notes["colorfix_type"], canvas.finish(finals[-1]) * 2 - 1, picture)

    monkeypatch.setattr(script, "patch", patch)
    got = script.run(tensors["lr_u8"])
    wanted = [tensors[key] for key in sorted(tensors) if key.endswith("final_latent")]
    assert all(off_by(a, b) < END for a, b in zip(finals, wanted, strict=True))
    assert same_picture(got, tensors["output_u8"])
