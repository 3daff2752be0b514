"""The one-step engine on tiny weights: official runs, sizes, tiles, drafts, texts, weights that do not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tests.golden.cases import HERE, Case, cases
from tests.taesd_folder import taesd, write_taesd
from torch import Tensor

from srcli.engines.latent import prompt_cache
from srcli.engines.latent.captions import Describer
from srcli.engines.onestep.denoiser import OneStepDenoiser
from srcli.engines.onestep.engine import OneStepEngine, extract_nouns
from srcli.engines.onestep.spec import SPEC
from srcli.engines.onestep.weights import OneStepNetworks, open_onestep
from srcli.engines.runtime.device import Device
from srcli.errors import InputError, WeightsError
from srcli.imaging.picture import Picture
from srcli.models.tiny_vae import decode_tiny, encode_tiny
from srcli.pipeline import EnginePipeline
from srcli.sampling import resume
from srcli.sampling.noise import POSTERIOR_NOISE, START_NOISE, NoiseField
from srcli.settings import LoraChoice, ModelChoice, Prompt, Sampling, TargetSize
from srcli.tasks import RESTORE, UPSCALE, Job
from srcli.weights.care import add_entry
from srcli.weights.families import LDM_UNET, LDM_VAE
from srcli.weights.open import read_config
from srcli.weights.single import convert_unet, convert_vae
from srcli.weights.store import Store

CPU = Device(torch.device("cpu"), torch.float32)
TINY = HERE / "onestep" / "tiny"
FILES = {"pisa": "pisa_sr.safetensors", "osediff": "osediff.safetensors", "gdpo": "gdpo"}
SMALL = Sampling(process_size=64)  # so that no test computes 512 x 512
SILENT = Prompt(caption="none")


def chosen(kind: str, **more) -> ModelChoice:
    given = {"adapter": str(TINY / FILES[kind]), "base": str(TINY / "base")} | more
    return SPEC.resolve(ModelChoice(engine="onestep", **given), Store(offline=True))


def opened(choice: ModelChoice) -> OneStepNetworks:
    return open_onestep(choice, CPU, Store(offline=True))


def pipeline(loaded: OneStepNetworks) -> EnginePipeline:
    store = Store(offline=True)
    return EnginePipeline(OneStepEngine.of(loaded, CPU, Describer(store, CPU), store), CPU)


@pytest.fixture(scope="module", params=FILES)
def line(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EnginePipeline:
    """Each variant, loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return pipeline(opened(chosen(request.param)))


def picture(height: int, width: int) -> Picture:
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 5 % 256, columns * 7 % 256, (rows + columns) * 3 % 256], axis=2)
    return Picture(pixels=pixels.astype(np.uint8))


# The official programs return 160x128, 160x136 and 504x504 for the first three, and crash with tiles on the fourth.
SIZES = [(21, 27, 4), (35, 41, 4), (49, 49, 1.5), (8, 30, 4), (5, 40, 3.3), (70, 66, 1)]


@pytest.mark.parametrize("tile", [None, 9])
@pytest.mark.parametrize(("height", "width", "scale"), SIZES)
def test_any_size_comes_out_exactly(
    line: EnginePipeline, height: int, width: int, scale: float, tile: int | None
) -> None:
    job = Job(task=UPSCALE, size=TargetSize(scale=scale), sampling=replace(SMALL, tile=tile), prompt=SILENT)
    result = line.run(picture(height, width), job)
    assert (result.height, result.width) == (round(height * scale), round(width * scale))
    assert np.ptp(result.pixels) > 0


def test_a_seed_is_a_picture_and_another_is_another(line: EnginePipeline) -> None:
    job = Job(task=RESTORE, sampling=SMALL, prompt=SILENT, seed=4)
    first, again, other = (line.run(picture(40, 32), j).pixels for j in (job, job, replace(job, seed=5)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


class Ended(Exception):
    """The run is over before its time."""


def test_a_run_that_ends_after_its_step_is_resumed(
    line: EnginePipeline, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(resume, "FIRST_SAVE_AFTER", 0.0)
    monkeypatch.setattr(resume, "SAVE_INTERVAL", 0.0)
    source = replace(picture(24, 16), name="a.png")
    job = Job(task=UPSCALE, sampling=SMALL, prompt=SILENT)
    whole = line.run(source, job).pixels

    def end(stage: str, done: int, total: int) -> None:
        if stage == "finishing":
            raise Ended

    with pytest.raises(Ended):
        line.run(source, job, end, line.resume_state(source, job))
    monkeypatch.setattr(OneStepDenoiser, "__call__", None)  # it is not called again
    assert np.array_equal(line.run(source, job, resume_state=line.resume_state(source, job)).pixels, whole)
    assert said == ["resuming a.png after step 1 of 1"]


@dataclass(frozen=True)
class Recorded(NoiseField):
    """The draws of an official run."""

    draws: tuple[tuple[int, Tensor], ...] = ()

    def draw(self, shape: tuple[int, ...], step: int = 0) -> Tensor:
        found = dict(self.draws)[step]
        assert found.shape == tuple(shape)
        return found


def official(case: Case) -> tuple[OneStepNetworks, Sampling]:
    """The models of an official run, told what it was told."""
    notes = case.notes
    kind = case.name.split(".")[1].split("_")[0]
    loaded = opened(chosen(kind))
    model = replace(loaded.variant, words="")  # they stand in the run's own text
    if kind == "gdpo":
        times = {name: int(notes[name]) for name in ("timestep", "noise_timestep")}
        model = replace(model, **times)
    tiles = {"tile": int(notes["tile"]), "overlap": int(notes["overlap"])} if "tile" in notes else {}
    return replace(loaded, variant=model), Sampling(process_size=8, color_fix="none", **tiles)


def runs() -> list[Case]:
    """Those whose strengths the engine offers."""
    found = [*cases("onestep", "o09_pipeline*"), *cases("onestep", "o12_pipeline*")]
    return [case for case in found if {case.notes.get(f"lambda_{part}", "1.0") for part in ("pix", "sem")} == {"1.0"}]


@pytest.mark.parametrize("case", runs(), ids=lambda case: case.name)
def test_the_engine_is_the_official_program(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the prepared picture to levels before the colour fix; theirs are truncated, ours rounded."""
    given = case.tensors
    draws = (
        (POSTERIOR_NOISE, given["posterior_noise"]),
        *([(START_NOISE, given["noise"])] if "noise" in given else []),
    )
    monkeypatch.setattr("srcli.pipeline.NoiseField", lambda seed: Recorded(seed, draws=draws))
    loaded, sampling = official(case)
    prompt = Prompt(text=case.notes["final_prompt"], caption="none")
    job = Job(task=UPSCALE, size=TargetSize(scale=1), sampling=sampling, prompt=prompt)
    got = pipeline(loaded).run(Picture(pixels=given["prepared_u8"].numpy()), job).pixels.astype(int)
    want = given["output_u8" if case.notes["align"] == "nofix" else "decoded_u8"].numpy().astype(int)
    assert set(np.unique(got - want)) <= {0, 1}


def test_fidelity_leads_from_invention_to_the_pixel_part_alone() -> None:
    line = pipeline(opened(chosen("pisa")))
    jobs = [
        Job(task=UPSCALE, sampling=replace(SMALL, fidelity=f, color_fix="none"), prompt=SILENT)
        for f in (None, 0.5, 0.0, 0.75, 1.0)
    ]
    usual, half, none, much, full = (line.run(picture(16, 16), job).pixels.astype(int) for job in jobs)
    assert np.array_equal(usual, half)
    away = [np.abs(found - half).mean() for found in (none, much, full)]
    assert all(away) and away[1] < away[2]


def test_a_short_of_memory_run_predicts_twice_and_gives_the_same() -> None:
    line = pipeline(opened(chosen("pisa")))
    job = Job(task=UPSCALE, sampling=replace(SMALL, fidelity=0.2), prompt=SILENT)
    plain = line.run(picture(16, 16), job).pixels.astype(int)
    line.oom_fallback.savings = replace(line.oom_fallback.savings, split_guidance=True)
    assert np.abs(line.run(picture(16, 16), job).pixels.astype(int) - plain).max() <= 1


def test_options_that_mean_nothing_are_refused() -> None:
    for variant in (None, "osediff", "gdpo"):
        for given in ({"steps": 2}, {"guidance": 3}, {"noise_level": 3}, {"scheduler": "unipc"}, {"reuse": 2}):
            with pytest.raises(InputError, match="means nothing to the onestep"):
                SPEC.complete_sampling(Sampling(**given), variant)
    assert SPEC.complete_sampling(Sampling(fidelity=0.2), "pisa").fidelity == 0.2
    with pytest.raises(InputError, match="`fidelity` means nothing to the onestep-osediff engine"):
        SPEC.complete_sampling(Sampling(fidelity=0.2), "osediff")
    with pytest.raises(InputError, match="`variant` 'rrdb' is unknown to the onestep engine"):
        SPEC.resolve(ModelChoice(variant="rrdb"), Store(offline=True))


def test_faces_keep_their_colours_unless_told_otherwise() -> None:
    assert SPEC.complete_sampling(Sampling(), "osediff-face").color_fix == "none"
    assert SPEC.complete_sampling(Sampling(), "osediff").color_fix == "adain"


# --- texts


def test_a_constant_text_needs_no_text_encoder_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(task=UPSCALE, sampling=SMALL, prompt=SILENT)
    first = pipeline(opened(chosen("pisa"))).run(picture(16, 16), job).pixels

    def refused(folder: Path, family: str) -> None:
        raise AssertionError("the text encoder was opened")

    monkeypatch.setattr(prompt_cache, "open_text_encoder", refused)
    assert np.array_equal(pipeline(opened(chosen("pisa"))).run(picture(16, 16), job).pixels, first)
    with pytest.raises(AssertionError, match="was opened"):
        pipeline(opened(chosen("pisa"))).run(picture(16, 16), replace(job, prompt=Prompt(text="a cat")))


def test_a_damaged_embedding_is_made_again() -> None:
    job = Job(task=UPSCALE, sampling=SMALL, prompt=SILENT)
    first = pipeline(opened(chosen("pisa"))).run(picture(16, 16), job).pixels
    kept = [path for path in (Store().places.data / "prompts").rglob("*.safetensors")]
    assert len(kept) == 1
    kept[0].write_bytes(b"{}")
    assert np.array_equal(pipeline(opened(chosen("pisa"))).run(picture(16, 16), job).pixels, first)


@dataclass(frozen=True)
class Captions:
    """A captioner that always sees the same."""

    seen: str

    def describe(self, hint: Tensor, how: str) -> str:
        return "" if how == "none" else self.seen


TOLD = {
    "pisa": [(Prompt(text="ink"), "ink", True), (Prompt(caption="caption"), "cat, sofa", False)],
    "osediff": [(Prompt(text="ink"), "cat, sofa, ink", False), (SILENT, "", True)],
    "gdpo": [(Prompt(), "cat, sofa, clean, high-resolution, 8k", False), (SILENT, "clean, high-resolution, 8k", True)],
}


def test_what_the_models_are_told(line: EnginePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a picture in which a captioner sees a cat; only a text that other pictures share is kept."""
    told, encode = [], prompt_cache.PromptEncoder.encode

    def recorded(encoder: prompt_cache.PromptEncoder, text: str, keep: bool) -> Tensor:
        told.append((text, keep))
        return encode(encoder, text, keep)

    monkeypatch.setattr(prompt_cache.PromptEncoder, "encode", recorded)
    seeing = replace(line, engine=replace(line.engine, describer=Captions("a cat sitting on the sofa")))
    for prompt, text, keep in TOLD[line.engine.variant]:
        seeing.run(picture(16, 16), Job(task=UPSCALE, sampling=SMALL, prompt=prompt))
        assert told.pop() == (text, keep)


def test_nouns_are_what_a_caption_shows() -> None:
    assert extract_nouns("a cat sitting on a t-shirt next to the cat") == "cat, t-shirt"
    assert extract_nouns("2 person, 1 dining table") == "person, table"
    assert extract_nouns("") == ""


# --- drafts


def test_a_draft_takes_the_tiny_vae(line: EnginePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_taesd(tmp_path)
    line = replace(line, engine=replace(line.engine, store=Store(offline=True)))
    used = []
    for name in ("encode", "decode"):
        plain = getattr(type(line.engine.codec), name)
        monkeypatch.setattr(
            type(line.engine.codec), name, lambda *given, name=name, plain=plain: used.append(name) or plain(*given)
        )
    job = Job(task=UPSCALE, sampling=replace(SMALL, quality="draft"), prompt=SILENT)
    result = line.run(picture(21, 27), job)
    assert (result.height, result.width) == (84, 108)
    assert used == ([] if line.engine.variant == "pisa" else ["encode"])
    assert line.provenance(job, picture(8, 8))["settings"]["tiny_vae"] is True


def test_the_tiny_vae_in_bands_is_that_in_one_piece() -> None:
    net = taesd()
    latents = torch.randn(1, 4, 150, 3)
    with torch.inference_mode():
        rgb = decode_tiny(net, latents)
        torch.testing.assert_close(rgb, net.decode(latents).sample, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encode_tiny(net, rgb), net.encode(rgb).latents, rtol=1e-4, atol=1e-5)


# --- weights that do not fit


def base_with(folder: Path, **schedule: object) -> Path:
    shutil.copytree(TINY / "base", folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | schedule))
    return folder


def narrow_base(folder: Path, width: int) -> Path:
    """A base whose UNet looks at texts of another width."""
    shutil.copytree(TINY / "base", folder)
    config = json.loads((folder / "unet" / "config.json").read_text()) | {"cross_attention_dim": width}
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    return folder


def refused(said: str, choice: ModelChoice) -> None:
    with pytest.raises(WeightsError, match=said) as caught:
        opened(choice)
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)


def test_other_bases_are_refused(tmp_path: Path) -> None:
    predicting = base_with(tmp_path / "v", prediction_type="v_prediction")
    refused("predicts v_prediction, and one-step models need epsilon", chosen("osediff", base=str(predicting)))
    refused("predicts v_prediction", chosen("gdpo", base=str(predicting)))
    sd15 = narrow_base(tmp_path / "sd15", 768)
    refused("this is sd15 unet, and width32 unet is needed", chosen("pisa", base=str(sd15)))
    save_file({"model.diffusion_model.x.attn2.to_k.weight": torch.ones(1, 768)}, tmp_path / "one.safetensors")
    refused(
        "this is sd15 checkpoint, and width32 checkpoint is needed",
        chosen("pisa", base=str(tmp_path / "one.safetensors")),
    )


def single_file(path: Path) -> Path:
    """The tiny base as one file in the original layout, named after PASD's tiny single file."""
    pasd = HERE / "pasd" / "personalized" / "ldm_checkpoint_fp16.safetensors"
    state = load_file(pasd)
    names = {tensor.data_ptr(): name for name, tensor in state.items()}
    single = {}
    for part, prefix, convert in (("unet", LDM_UNET, convert_unet), ("vae", LDM_VAE, convert_vae)):
        inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        renamed = convert(pasd, inner, read_config(HERE / "pasd" / "tiny" / "base" / part))
        own = load_file(TINY / "base" / part / "diffusion_pytorch_model.safetensors")
        single |= {names[tensor.data_ptr()]: own[name] for name, tensor in renamed.items() if name in own}
    for ours, theirs in (
        ("encoder.down_blocks.1.resnets", "encoder.down.1"),
        ("decoder.up_blocks.3.resnets", "decoder.up.0"),
    ):
        for end in ("weight", "bias"):  # two layers that PASD's file lacks
            single[f"{LDM_VAE}{theirs}.block.0.nin_shortcut.{end}"] = own[f"{ours}.0.conv_shortcut.{end}"]
    text = load_file(TINY / "base" / "text_encoder" / "model.safetensors")
    save_file(single | {f"cond_stage_model.transformer.{name}": tensor for name, tensor in text.items()}, path)
    return path


@pytest.mark.parametrize("kind", ["osediff", "gdpo"])
def test_a_single_file_is_a_base_like_its_folder(kind: str, tmp_path: Path) -> None:
    file = str(single_file(tmp_path / "own.safetensors"))
    refused("sd21-base", chosen(kind, base=file))  # its family has no configurations here
    add_entry(Store(offline=True), "tiny", str(TINY / "base"), "base")
    one, two = opened(chosen(kind, base=file)), opened(chosen(kind))
    for name in ("unet", "vae"):
        states = [getattr(loaded, name).state_dict() for loaded in (one, two)]
        assert states[0].keys() == states[1].keys() and all(
            torch.equal(states[0][key], states[1][key]) for key in states[0]
        )
    assert torch.equal(one.texts.encode("a cat", keep=True), two.texts.encode("a cat", keep=False))
    assert any(path.startswith("own.safetensors") for path in one.weights_used)


def test_other_adapters_are_refused(tmp_path: Path) -> None:
    pair = {f"unet.conv_in.lora_{half}.weight": torch.ones(2, 2) for half in "AB"}
    save_file(pair, tmp_path / "ink.safetensors")
    ink = str(tmp_path / "ink.safetensors")
    refused("this is any lora, not an OSEDiff or PiSA-SR adapter", chosen("pisa", adapter=ink))
    refused("this is osediff, and `variant` pisa needs another", chosen("osediff", variant="pisa"))
    refused("this is pisa, and `variant` osediff-face needs another", chosen("pisa", variant="osediff-face"))
    refused("this is gdpo, and `variant` pisa needs another", chosen("gdpo", variant="pisa"))
    refused("holds no unet and vae, nor one file", chosen("pisa", adapter=str(TINY / "base" / "tokenizer")))
    shutil.copytree(TINY / "gdpo" / "unet", tmp_path / "half" / "unet")
    refused("holds no unet and vae", chosen("gdpo", adapter=str(tmp_path / "half")))


def test_pickles_open_only_when_allowed(tmp_path: Path) -> None:
    path = TINY / "osediff.pkl"
    refused("add `allow_pickle`", chosen("osediff", adapter=str(path)))
    loaded = opened(chosen("osediff", adapter=str(path), allow_pickle=True))
    flat = opened(chosen("osediff"))
    for name in ("unet", "vae"):
        one, two = (getattr(found, name).state_dict() for found in (loaded, flat))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert loaded.variant.name == "osediff"
    (tmp_path / "cut.pkl").write_bytes(path.read_bytes()[:9000])
    refused("is damaged", chosen("osediff", adapter=str(tmp_path / "cut.pkl"), allow_pickle=True))


def test_a_lora_changes_unet_and_text(tmp_path: Path) -> None:
    state = load_file(TINY / "base" / "text_encoder" / "model.safetensors")
    name = next(key for key in state if key.endswith("0.self_attn.q_proj.weight")).removesuffix(".weight")
    wide = state[f"{name}.weight"].shape[0]
    torch.manual_seed(3)
    pairs = {
        "unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.randn(2, 24),
        "unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.randn(24, 2),
        f"text_encoder.{name}.lora_A.weight": torch.randn(2, wide),
        f"text_encoder.{name}.lora_B.weight": torch.randn(wide, 2),
    }
    save_file(pairs, tmp_path / "ink.safetensors")
    plain, inked = (
        opened(chosen("pisa")),
        opened(chosen("pisa", loras=(LoraChoice(source=str(tmp_path / "ink.safetensors")),))),
    )
    key = "mid_block.attentions.0.proj_in.weight"
    assert not torch.equal(plain.unet.state_dict()[key], inked.unet.state_dict()[key])
    assert not torch.equal(*(found.texts.encode("a cat", keep=True) for found in (plain, inked)))
    assert any("ink" in name for name in inked.weights_used)
