"""Deep features that serve several steps: exact around a step's own, fewer layers run, and tiles keep theirs apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.golden.pasd_models import nets as official

from srcli.engines.forecast import forecast_run
from srcli.engines.latent.captions import Describer
from srcli.engines.pasd.engine import PasdEngine
from srcli.engines.pasd.forecast import DEEP
from srcli.engines.pasd.sampling import POSITIVE, Nets, PasdDenoiser, feature_source_steps
from srcli.engines.pasd.spec import SPEC as PASD
from srcli.engines.pasd.weights import open_pasd
from srcli.engines.runtime.device import Device
from srcli.engines.stablesr.spec import SPEC as STABLESR
from srcli.errors import InputError, TooLarge
from srcli.imaging.picture import Picture
from srcli.pipeline import EnginePipeline
from srcli.sampling import resume
from srcli.sampling.sampler import Tiled
from srcli.sampling.tiling import Tile
from srcli.settings import ModelChoice, Sampling, TargetSize
from srcli.tasks import UPSCALE, Job
from srcli.weights.store import Store

ROOT = Path(__file__).parents[2] / "golden/pasd"
CPU = Device(torch.device("cpu"), torch.float32)
FIRST, SECOND = torch.tensor(501), torch.tensor(401)
PICTURE = Picture(pixels=np.random.default_rng(3).integers(0, 256, (40, 56, 3), np.uint8))


def led(kind: str = "pasd", **more: object) -> PasdDenoiser:
    parts = official(ROOT, kind)
    text = torch.randn(2, 77, parts.unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(2))
    nets = Nets(parts.unet, parts.paca, parts.control, CPU)
    source = {float(t): float(FIRST) for t in (FIRST, SECOND)}
    usual = {"guidance": 9.0, "conditioning_scale": 0.8, "guided_timesteps": frozenset(source)}
    usual["feature_source"] = source
    return PasdDenoiser(nets, text, **usual | more)


def cpu(memory: float | None) -> Device:
    return replace(CPU, memory=memory and int(memory * (1 << 30)))


def inputs(side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 4, side, side, generator=generator), torch.rand(1, 3, 8 * side, 8 * side, generator=generator)


@pytest.mark.parametrize("kind", ["pasd", "pasd_light"])
@torch.inference_mode()
def test_around_a_step_s_own_features_the_outer_layers_predict_what_all_do(kind):
    model, (x, hint) = led(kind), inputs()
    embedding = model._embedding(hint, None)
    whole = model.predict(x, FIRST, embedding, POSITIVE)
    assert torch.equal(model.predict(x, FIRST, embedding, POSITIVE), whole)
    assert [len(kept) for kept in model._deep.values()] == [1]


@torch.inference_mode()
def test_fewer_layers_run():
    model, (x, hint), runs = led(), inputs(), {"mid": 0, "control": 0, "last": 0}
    nets = {"mid": model.nets.unet.mid_block, "control": model.nets.control, "last": model.nets.unet.up_blocks[-1]}
    hooks = [
        net.register_forward_pre_hook(lambda *_, name=name: runs.update({name: runs[name] + 1}))
        for name, net in nets.items()
    ]
    near = [model(x, t, hint) for t in (FIRST, SECOND)]
    assert runs == {"mid": 1, "control": 1, "last": 2}
    exact = led(feature_source={})
    assert torch.equal(exact(x, FIRST, hint), near[0])
    assert not torch.equal(exact(x, SECOND, hint), near[1])
    for hook in hooks:
        hook.remove()


@torch.inference_mode()
def test_tiles_and_texts_keep_theirs_apart():
    x, hint = inputs(24)
    tiles = [Tile(top, left, 16, 16) for left in (0, 8) for top in (0, 8)]

    def second(**how: object) -> torch.Tensor:
        tiled = Tiled(led(split_guidance=bool(how.get("split_guidance"))), tiles, int(how.get("batch", 1)))
        tiled(x, FIRST, hint)
        return tiled(x, SECOND, hint)

    one = second()
    for how in ({"batch": 4}, {"split_guidance": True}):
        torch.testing.assert_close(second(**how), one, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_features_from_before_are_not_taken_for_later_steps():
    later = torch.tensor(201)
    model, (x, hint) = (
        led(feature_source={501.0: 501.0, 201.0: 301.0}, guided_timesteps=frozenset([501.0, 201.0])),
        inputs(),
    )
    model(x, FIRST, hint)
    exact = led(feature_source={}, guided_timesteps=frozenset([201.0]))
    assert torch.equal(model(x, later, hint), exact(x, later, hint))


@torch.inference_mode()
def test_nothing_stays_that_serves_no_more():
    model, (x, hint) = led(feature_source={501.0: 501.0, 201.0: 201.0}), inputs()
    hooks = model.nets.unet.up_blocks[-1]._forward_pre_hooks
    before = len(hooks)
    for t in (FIRST, torch.tensor(201)):
        model(x, t, hint)
        assert list(model._deep) == [float(t)]
    assert len(hooks) == before


def test_one_is_the_exact_way():
    times = torch.tensor([9, 7, 5, 3])
    assert feature_source_steps(times, 1) == {}
    assert feature_source_steps(times, 3) == {9: 9, 7: 9, 5: 9, 3: 3}


def line() -> EnginePipeline:
    choice = ModelChoice(engine="pasd", base=str(ROOT / "tiny/base"), adapter=str(ROOT / "tiny/pasd"))
    store = Store(offline=True)
    return EnginePipeline(PasdEngine.of(open_pasd(choice, store), CPU, Describer(store, CPU)), CPU, choice)


def job(**sampling: object) -> Job:
    asked = Sampling(**{"steps": 6, "process_size": 32, "tile": 4} | sampling)
    return Job(task=UPSCALE, size=TargetSize(scale=1), sampling=asked)


@pytest.mark.parametrize("last", [1, 3, 5])
def test_a_run_that_is_resumed_between_two_fresh_steps_gives_the_same(monkeypatch, last):
    class Ended(Exception):
        pass

    def on_progress(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("sampling", last):
            raise Ended

    monkeypatch.setattr(resume, "FIRST_SAVE_AFTER", 0.0)
    monkeypatch.setattr(resume, "SAVE_INTERVAL", 0.0)
    made, asked = line(), job(reuse=2, guidance_interval=(0.0, 0.6))
    whole = made.run(PICTURE, asked).pixels
    assert not np.array_equal(whole, made.run(PICTURE, job(guidance_interval=(0.0, 0.6))).pixels)
    with pytest.raises(Ended):
        made.run(PICTURE, asked, on_progress, made.resume_state(PICTURE, asked))
    assert np.array_equal(made.run(PICTURE, asked, resume_state=made.resume_state(PICTURE, asked)).pixels, whole)


def test_the_forecast_knows_what_it_saves():
    pasd, asked = ModelChoice(engine="pasd"), job(tile=None, process_size=512)
    exact, near = (
        forecast_run(pasd, replace(asked, sampling=replace(asked.sampling, reuse=n)), (512, 512), CPU)
        for n in (None, 3)
    )
    assert 0.5 < near.flop / exact.flop < 0.65


def test_what_is_kept_is_counted_where_it_lies():
    pasd, asked = ModelChoice(engine="pasd"), job(tile=None, process_size=512)
    exact = forecast_run(pasd, asked, (2048, 2048), cpu(None))
    asked = replace(asked, sampling=replace(asked.sampling, reuse=2))
    near = forecast_run(pasd, asked, (2048, 2048), cpu(None))
    kept = near.tiles * near.tile[0] * near.tile[1] * 2 * 4 * DEEP
    assert (near.memory - exact.memory, near.host) == (kept, 0)
    meta = Device(torch.device("meta"), torch.float16, 8 << 30)
    assert forecast_run(pasd, asked, (2048, 2048), meta).host == kept / 2


def test_what_is_kept_must_fit_too():
    sampling = PASD.complete_sampling(job(reuse=2, tile=64).sampling, None)
    engine = line().engine
    assert isinstance(engine, PasdEngine)

    def at_once(memory: float | None) -> int:
        made = replace(engine, nets=replace(engine.nets, device=cpu(memory)))
        return (made.layout(128, 128, sampling) or ([], 0))[1]

    assert [at_once(memory) for memory in (None, 4, 1.5)] == [2, 2, 1]
    with pytest.raises(TooLarge, match=r"PASD does not fit into 0\.6G .* `max_memory` 1\.4G"):
        at_once(0.6)


def test_other_engines_refuse_it():
    with pytest.raises(InputError, match="`reuse` means nothing to the stablesr engine"):
        STABLESR.complete_sampling(Sampling(reuse=2), None)
