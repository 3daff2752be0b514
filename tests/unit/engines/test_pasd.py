"""PASD's engine on tiny weights: what it refuses, and what must not matter to its picture."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from srcli.engines.latent.captions import Describer
from srcli.engines.pasd.engine import PasdEngine, grey_size
from srcli.engines.pasd.weights import open_pasd
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import Placement
from srcli.engines.runtime.oom_fallback import MemorySavings
from srcli.errors import WeightsError
from srcli.imaging.color import compute_luminance
from srcli.imaging.picture import Picture
from srcli.pipeline import EnginePipeline
from srcli.settings import LoraChoice, ModelChoice, Prompt, Sampling, TargetSize
from srcli.tasks import COLORIZE, TASKS, UPSCALE, Job
from srcli.weights.store import Store

TINY = Path(__file__).parents[2] / "golden" / "pasd" / "tiny"
PERSONAL = TINY.parent / "personalized"
FP32 = Device(torch.device("cpu"), torch.float32)
WEIGHTS = "diffusion_pytorch_model.safetensors"
PICTURE = Picture(pixels=np.random.default_rng(3).integers(0, 256, (40, 56, 3), dtype=np.uint8))


def chosen(**given: object) -> ModelChoice:
    return ModelChoice(**{"engine": "pasd", "base": str(TINY / "base"), "adapter": str(TINY / "pasd")} | given)


def opened(choice: ModelChoice):
    return open_pasd(choice, Store(offline=True))


def pipeline(choice: ModelChoice, device: Device = FP32) -> EnginePipeline:
    engine = PasdEngine.of(opened(choice), device, Describer(Store(offline=True), device))
    return EnginePipeline(engine, device)


@pytest.fixture(scope="module")
def tiny() -> EnginePipeline:
    return pipeline(chosen())


@pytest.fixture(scope="module")
def coloring() -> EnginePipeline:
    return pipeline(chosen(adapter=str(TINY / "pasd_light")))


def job(task=UPSCALE, seed: int = 1, scale: float = 1, **sampling: object) -> Job:
    made = Sampling(**{"steps": 2, "process_size": 32} | sampling)
    return Job(task=task, size=TargetSize(scale=scale), sampling=made, prompt=Prompt(caption="none"), seed=seed)


def copied(tmp_path: Path, kind: str = "pasd") -> Path:
    shutil.copytree(TINY / kind, tmp_path / kind)
    return tmp_path / kind


def test_the_tensors_of_a_chosen_base_are_let_go_of() -> None:
    loaded = opened(chosen())
    assert loaded.base.unet is None  # its tensors would stay in memory beside the packed ones


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_every_task_gives_a_picture_of_its_size(tiny: EnginePipeline, coloring: EnginePipeline, task) -> None:
    got = (coloring if task is COLORIZE else tiny).run(PICTURE, job(task, scale=1.5))
    assert got.pixels.shape == (60, 84, 3)
    assert np.ptp(got.pixels) > 0


def test_colorizing_keeps_luminance_to_the_last_bit(coloring: EnginePipeline) -> None:
    got = coloring.run(PICTURE, job(COLORIZE))
    assert np.array_equal(compute_luminance(got.pixels), compute_luminance(PICTURE.pixels))
    assert (got.pixels[..., 0] != got.pixels[..., 2]).any()


def test_the_seed_alone_decides(tiny: EnginePipeline) -> None:
    first, again, other = (tiny.run(PICTURE, job(seed=seed)).pixels for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("batch", [1, 3])
def test_tiles_may_share_a_call_or_not(tiny: EnginePipeline, batch: int) -> None:
    asked = job(tile=4, overlap=2)
    whole = tiny.run(PICTURE, asked).pixels.astype(int)
    roomy = replace(tiny, engine=replace(tiny.engine, placement=Placement(batch * 16)))
    assert np.abs(roomy.run(PICTURE, asked).pixels - whole).max() <= 1


@pytest.mark.parametrize(
    "less",
    [{"share": 0.0}, {"split_guidance": True}, {"band": 0.01}, {"offload": True}],
    ids=lambda less: next(iter(less)),
)
def test_less_at_a_time_gives_the_same_picture(tiny: EnginePipeline, less: dict) -> None:
    asked = job(tile=4, overlap=2)
    frugal = EnginePipeline(tiny.engine, FP32, print)
    frugal.oom_fallback.savings = MemorySavings(**less)
    difference = frugal.run(PICTURE, asked).pixels - tiny.run(PICTURE, asked).pixels.astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("split_guidance", [False, True])
def test_guidance_in_two_calls_halves_the_largest(tiny: EnginePipeline, split_guidance: bool) -> None:
    rows = set()
    hook = tiny.engine.nets.unet.register_forward_pre_hook(lambda net, given: rows.add(len(given[0])))
    frugal = EnginePipeline(tiny.engine, FP32, print)
    frugal.oom_fallback.savings = MemorySavings(split_guidance=split_guidance)
    frugal.run(PICTURE, job())
    hook.remove()
    assert rows == {1 if split_guidance else 2}


@pytest.mark.parametrize("name", ["unipc", "dpm++", "ddim", "euler", "lcm"])
def test_every_scheduler_runs(tiny: EnginePipeline, name: str) -> None:
    assert np.ptp(tiny.run(PICTURE, job(scheduler=name, steps=3)).pixels) > 0


def test_guidance_on_no_step_is_no_guidance(tiny: EnginePipeline) -> None:
    unguided = tiny.run(PICTURE, job(guidance=1)).pixels
    assert np.array_equal(tiny.run(PICTURE, job(guidance_interval=(0, 0))).pixels, unguided)
    assert np.array_equal(tiny.run(PICTURE, job(guidance_interval=(0, 1))).pixels, tiny.run(PICTURE, job()).pixels)
    assert not np.array_equal(tiny.run(PICTURE, job()).pixels, unguided)


@pytest.mark.parametrize("option", [{"conditioning_scale": 0.2}, {"noise_level": 300}])
def test_an_option_has_an_effect(tiny: EnginePipeline, option: dict) -> None:
    assert not np.array_equal(tiny.run(PICTURE, job(**option)).pixels, tiny.run(PICTURE, job()).pixels)


def test_a_prompt_of_any_length_is_read_whole_and_said(tiny: EnginePipeline, said: list[str]) -> None:
    long = Prompt(text="a dog " * 100, caption="none")
    got = tiny.run(PICTURE, replace(job(), prompt=long)).pixels
    assert any("tokens" in text for text in said)
    longer = Prompt(text=long.text + "and a cat", caption="none")
    assert not np.array_equal(tiny.run(PICTURE, replace(job(), prompt=longer)).pixels, got)


def test_half_precision_that_overflows_is_decoded_again_in_float32() -> None:
    half = pipeline(chosen(), Device(torch.device("cpu"), torch.bfloat16))
    codec = half.engine.codec
    codec.net.to(torch.float16)
    codec.net.decoder.conv_in.weight.data.mul_(1e4)
    codec.net.post_quant_conv.weight.data.mul_(1e3)
    first = half.run(PICTURE, job()).pixels
    assert np.ptp(first) > 0
    assert codec.net.dtype is torch.float16, "the next picture starts as this one did"
    assert np.array_equal(half.run(PICTURE, job()).pixels, first)


def test_a_decoder_that_gives_nothing_at_all_is_an_error() -> None:
    broken = pipeline(chosen())
    broken.engine.codec.net.decoder.conv_out.weight.data.fill_(float("nan"))
    with pytest.raises(Exception, match="choose another base model"):
        broken.run(PICTURE, job())


@settings(max_examples=50)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(8, 900))
def test_colours_need_no_more_than_their_size(width: int, height: int, short: int) -> None:
    got = grey_size((width, height), short)
    assert min(got) <= short
    assert max(got) <= 2 * short
    assert (got[0] > got[1]) == (width > height) or got[0] == got[1]


def test_another_base_brings_its_unet_and_only_paca_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_file(TINY / "base" / "unet" / WEIGHTS)
    own = load_file(TINY / "pasd" / "unet" / WEIGHTS)
    read: list[set[str]] = []
    from srcli.engines.pasd import weights as pasd_weights

    real = pasd_weights.read_tensors
    monkeypatch.setattr(
        pasd_weights,
        "read_tensors",
        lambda folder, names=None, dtype=None: read.append(set(names or ())) or real(folder, names, dtype),
    )
    state = opened(chosen()).unet.state_dict()
    assert all(torch.equal(state[name], base[name]) for name in base)
    assert own.keys() - base.keys() in read
    kept = opened(chosen(blend=0.0)).unet.state_dict()
    assert all(torch.equal(kept[name], own[name]) for name in base)
    mixed = opened(chosen(blend=0.25)).unet.state_dict()
    torch.testing.assert_close(mixed["conv_in.weight"], 0.25 * base["conv_in.weight"] + 0.75 * own["conv_in.weight"])


def test_a_lora_changes_what_it_names_and_no_file() -> None:
    path = PERSONAL / "lora_kohya.safetensors"
    before = (TINY / "base" / "unet" / WEIGHTS).read_bytes()
    plain, led = opened(chosen()), opened(chosen(loras=(LoraChoice(source=str(path), weight=0.5),)))
    changed = [
        name for name, weight in led.unet.state_dict().items() if not torch.equal(weight, plain.unet.state_dict()[name])
    ]
    assert changed
    assert (TINY / "base" / "unet" / WEIGHTS).read_bytes() == before
    assert any(path.name in name for name in led.weights_used)


def test_the_schedule_beside_a_checkpoint_is_honoured(tmp_path: Path) -> None:
    shutil.copytree(TINY / "pasd_light", tmp_path / "color" / "checkpoint-7")
    shutil.copytree(TINY / "pasd_color" / "scheduler", tmp_path / "color" / "scheduler")
    loaded = opened(chosen(adapter=str(tmp_path / "color"), variant="light-color"))
    assert loaded.schedule["prediction_type"] == "v_prediction"


def test_the_latest_checkpoint_is_taken(tmp_path: Path) -> None:
    for step in (9, 10):
        shutil.copytree(TINY / "pasd", tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-10" / "unet" / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="checkpoint-10"):
        opened(chosen(adapter=str(tmp_path)))


# What is refused, how the folder is spoiled, and what the one line must say.


def without_paca(folder: Path) -> None:
    shutil.copy(TINY / "base" / "unet" / WEIGHTS, folder / "unet" / WEIGHTS)


def of_another_size(folder: Path) -> None:
    path = folder / "controlnet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"block_out_channels": [8, 8, 8, 8]}))


def lacking_a_key(folder: Path) -> None:
    path = folder / "controlnet" / WEIGHTS
    state = load_file(path)
    state.pop("conv_in.bias")
    save_file(state, path)


def cut_short(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_paca, "without PASD's attention"),
        (of_another_size, "block_out_channels"),
        (lacking_a_key, "conv_in.bias"),
        (cut_short, "not a whole safetensors"),
        (lambda folder: shutil.rmtree(folder / "controlnet"), "unet and controlnet"),
        (lambda folder: (folder / "unet" / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "unet" / "config.json").write_text('{"a": 1}'), "config.json"),
    ],
)
def test_a_spoiled_adapter_is_one_line(tmp_path: Path, spoil, says: str) -> None:
    folder = copied(tmp_path)
    spoil(folder)
    refused(says, adapter=str(folder))


def wider(name: str, key: str):
    def spoil(folder: Path) -> None:
        path = folder / name
        state = load_file(path)
        state[key] = torch.zeros(state[key].shape[0], state[key].shape[1] + 8)
        save_file(state, path)

    return spoil


ATTN2 = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
TOKENS = "text_model.embeddings.token_embedding.weight"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (wider(f"unet/{WEIGHTS}", ATTN2), "unet"),
        (wider("text_encoder/model.safetensors", TOKENS), "text-encoder, and width32"),
        (lambda folder: shutil.rmtree(folder / "vae"), "no vae"),
        (lambda folder: (folder / "tokenizer" / "vocab.json").unlink(), "tokenizer"),
        (lambda folder: (folder / "scheduler" / "scheduler_config.json").write_text("{}"), "noise schedule"),
    ],
)
def test_a_spoiled_base_is_one_line(tmp_path: Path, spoil, says: str) -> None:
    folder = copied(tmp_path, "base")
    spoil(folder)
    refused(says, base=str(folder))


def test_a_lora_that_matches_in_part_is_refused(tmp_path: Path) -> None:
    state = load_file(PERSONAL / "lora_kohya.safetensors")
    name = next(key for key in state if "lora_unet" in key)
    path = tmp_path / "part.safetensors"
    save_file({(k.replace("lora_unet_", "lora_unet_no_") if k == name else k): v for k, v in state.items()}, path)
    refused("part.safetensors", loras=(LoraChoice(source=str(path)),))


def test_a_schedule_that_does_not_end_in_noise_cannot_colorize(tmp_path: Path) -> None:
    folder = copied(tmp_path, "pasd_light")
    shutil.copytree(TINY / "base" / "scheduler", folder / "scheduler")
    refused("pure noise", adapter=str(folder), variant="light-color")


@pytest.mark.parametrize("given", [{"base": "no/such/folder/at/all"}, {"adapter": "missing.safetensors"}])
def test_what_is_not_there_is_one_line(given: dict) -> None:
    refused("check the path", **given)


def refused(says: str, **given: object) -> None:
    with pytest.raises(WeightsError) as caught:
        opened(chosen(**given))
    text = str(caught.value)
    assert says in text
    assert "\n" not in text
    assert ": " in text
