"""StableSR's engine on tiny weights: sizes, tiles, fidelity, weights that do not fit."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tests.golden.cases import HERE
from tests.golden.stablesr_tiny import tiny
from tests.stablesr_folder import write_adapter, write_base, write_pickle

from srcli.engines.runtime.device import Device
from srcli.engines.stablesr.engine import StableSREngine
from srcli.engines.stablesr.spec import SPEC
from srcli.engines.stablesr.weights import build_from_weights, open_stablesr
from srcli.errors import InputError, WeightsError
from srcli.imaging.picture import Picture
from srcli.models.patches import spade
from srcli.pipeline import EnginePipeline
from srcli.sampling.tiling import pad_to_multiple
from srcli.settings import ModelChoice, Prompt, Sampling, TargetSize
from srcli.tasks import RESTORE, UPSCALE, Job
from srcli.weights.header import hash_weights
from srcli.weights.lock import Entry, File
from srcli.weights.overlay import write_entry
from srcli.weights.store import Store

CPU = Device(torch.device("cpu"), torch.float32)
QUICK = Sampling(steps=2, fidelity=0.5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("models") / "adapter")


def choice(adapter: Path, base: Path | None, **more) -> ModelChoice:
    return ModelChoice(engine="stablesr", adapter=str(adapter), base=base and str(base), **more)


def engine(wish: ModelChoice, process: int = 72) -> StableSREngine:
    """For small pictures, so that no test computes 512 x 512."""
    loaded = open_stablesr(wish, Store(offline=True))
    return StableSREngine.of(replace(loaded, variant=replace(loaded.variant, process=process)), CPU)


def pipeline(wish: ModelChoice, process: int = 72) -> EnginePipeline:
    return EnginePipeline(engine(wish, process), CPU)


def picture(height: int, width: int) -> Picture:
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 5 % 256, columns * 7 % 256, (rows + columns) * 3 % 256], axis=2)
    return Picture(pixels=pixels.astype(np.uint8))


@pytest.mark.parametrize(("height", "width", "scale"), [(27, 36, 4), (9, 41, 3.3), (30, 17, 2), (1, 5, 4)])
@pytest.mark.parametrize("tile", [None, 12])
def test_any_size_comes_out_exactly(adapter, base, height, width, scale, tile):
    job = Job(task=UPSCALE, size=TargetSize(scale=scale), sampling=replace(QUICK, tile=tile))
    result = pipeline(choice(adapter, base)).run(picture(height, width), job)
    assert (result.height, result.width) == (round(height * scale), round(width * scale))
    assert np.ptp(result.pixels) > 0


def test_a_seed_is_a_picture_and_another_is_another(adapter, base):
    line, source = pipeline(choice(adapter, base)), picture(18, 18)
    job = Job(task=UPSCALE, sampling=QUICK, seed=4)
    first, again, other = (line.run(source, j).pixels for j in (job, job, replace(job, seed=5)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_old_photographs_are_restored_at_their_own_size(adapter, base):
    result = pipeline(choice(adapter, base)).run(picture(70, 66), Job(task=RESTORE, sampling=QUICK))
    assert (result.height, result.width) == (70, 66)


def test_a_processs_second_picture_is_resumed_like_its_first(tmp_path, base):
    bare, file = write_adapter(tmp_path / "bare", fusion=False), write_adapter(tmp_path / "whole") / "cfw.safetensors"
    known = {file.name: File(file.name, None, hash_weights(file))}
    entry = Entry(name="stablesr-cfw", kind="vae", family="sd21", license="none", files=known, local=str(file))
    write_entry(Store(offline=True).places.overlay, entry)
    line, job = pipeline(choice(bare, base, offline=True)), Job(task=UPSCALE, sampling=QUICK)
    before = line.resume_state(picture(18, 18), job)._folder
    line.run(picture(18, 18), job)
    assert line.resume_state(picture(18, 18), job)._folder == before


@pytest.mark.parametrize("name", ["ddim", "unipc", "dpm++", "euler"])
def test_other_schedulers_sample_too(adapter, base, name):
    job = Job(task=UPSCALE, sampling=replace(QUICK, scheduler=name, steps=3))
    assert np.ptp(pipeline(choice(adapter, base)).run(picture(18, 18), job).pixels) > 0


def test_fidelity_needs_fusion_layers_and_says_so(tmp_path, base):
    bare = write_adapter(tmp_path / "bare", fusion=False)
    line = pipeline(choice(bare, base, offline=True))
    line.run(picture(18, 18), Job(task=UPSCALE, sampling=Sampling(steps=2, fidelity=0)))
    with pytest.raises(WeightsError, match=r"stablesr-cfw.*`fidelity` 0"):
        line.run(picture(18, 18), Job(task=UPSCALE, sampling=QUICK))


def test_fidelity_draws_on_the_picture(adapter, base):
    line = pipeline(choice(adapter, base))
    jobs = [Job(task=UPSCALE, sampling=Sampling(steps=2, fidelity=w, color_fix="none")) for w in (0, 0.5, 1)]
    none, half, full = (line.run(picture(18, 18), job).pixels.astype(int) for job in jobs)
    assert 0 < np.abs(half - none).mean() < np.abs(full - none).mean()
    assert any("cfw" in name for name in line.engine.provenance())


def lend(base: Path, name: str = "sd21-base") -> None:
    """Make the tiny base the usual one, as `srcli models add` would."""
    files = {p.relative_to(base).as_posix(): File(p.name) for p in base.rglob("*") if p.is_file()}
    store = Store(offline=True)
    write_entry(
        store.places.overlay, Entry(name=name, kind="base", family="any", license="none", files=files, local=str(base))
    )


def test_a_whole_pickled_checkpoint_is_the_base_and_the_adapter(tmp_path, adapter, base):
    lend(base)
    path = write_pickle(tmp_path / "stablesr.ckpt")
    with pytest.raises(WeightsError, match="`allow_pickle`"):
        open_stablesr(choice(path, None), Store(offline=True))
    own = open_stablesr(choice(path, None, allow_pickle=True), Store(offline=True))
    both = [own, open_stablesr(choice(adapter, base), Store())]
    for name in ("unet", "encoder", "modulation"):
        first, second = (getattr(loaded, name).state_dict() for loaded in both)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    for part in ("vae", "text_encoder"):
        first, second = (getattr(loaded.base, part).state_dict() for loaded in both)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_velocity_variant_is_known_by_its_base(tmp_path, adapter):
    lend_to = write_base(tmp_path / "v", prediction="v_prediction")
    assert open_stablesr(choice(adapter, lend_to), Store()).variant.name == "768v"
    with pytest.raises(WeightsError, match="predicts v_prediction"):
        open_stablesr(choice(adapter, lend_to, variant="512"), Store())


def test_a_known_file_brings_its_variant_and_its_usual_base(tmp_path, adapter):
    lend(write_base(tmp_path / "v", prediction="v_prediction"), "sd21")
    path = adapter / "adapter.safetensors"
    store = Store(offline=True)
    known = {"adapter.safetensors": File("adapter.safetensors", None, hash_weights(path))}
    entry = Entry(name="stablesr-768v", kind="adapter", family="sd21", license="none", files=known, local=str(path))
    write_entry(store.places.overlay, entry)
    loaded = open_stablesr(choice(path, None), Store(offline=True))
    assert (loaded.variant.name, loaded.variant.process) == ("768v", 768)


def test_words_are_read_and_a_negative_prompt_is_said_to_be_idle(adapter, base, said):
    line = EnginePipeline(engine(choice(adapter, base)), CPU)
    prompts = (Prompt(), Prompt(text="a cat"), Prompt(negative="dogs"))
    plain, cat, dogs = (line.run(picture(18, 18), Job(task=UPSCALE, sampling=QUICK, prompt=p)).pixels for p in prompts)
    assert not np.array_equal(plain, cat)
    assert np.array_equal(plain, dogs)
    assert said == ["StableSR samples without guidance: the negative prompt has no effect"]


def test_turbo_has_few_steps_by_default(adapter, base):
    assert engine(choice(adapter, base, variant="turbo")).variant == "turbo"
    assert SPEC.complete_sampling(Sampling(), "turbo").steps == 4
    assert engine(choice(adapter, base)).variant == "512"


def test_an_unknown_variant_is_a_usage_error(adapter, base):
    with pytest.raises(InputError, match="choose one of 512, 768v, turbo"):
        open_stablesr(ModelChoice(engine="stablesr", variant="1024"), Store(offline=True))


def test_a_base_of_another_family_is_refused(tmp_path, adapter, base):
    other = tmp_path / "sd15"
    shutil.copytree(base, other)
    net = UNet2DConditionModel.from_config({**tiny().unet.config, "cross_attention_dim": 768})
    net.save_pretrained(other / "unet")
    with pytest.raises(WeightsError, match="sd15 unet, and sd21 unet is needed"):
        open_stablesr(choice(adapter, other), Store())


def test_a_text_encoder_of_another_width_is_refused(tmp_path, adapter):
    with pytest.raises(WeightsError, match="text-encoder, and width24 text-encoder is needed"):
        open_stablesr(choice(adapter, write_base(tmp_path / "base", text_width=32)), Store())


def test_a_pasd_adapter_is_refused(base):
    with pytest.raises(WeightsError, match="not one StableSR model"):
        open_stablesr(choice(HERE / "pasd" / "tiny" / "pasd", base), Store())


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("structcond_stage_model.fea_tran.1.in_layers.0.weight", r"lacks fea_tran\.1\.in_layers\.0\.weight"),
        ("structcond_stage_model.input_blocks.0.0.weight", "is not whole"),
        ("model.diffusion_model.middle_block.0.spade.mlp_beta.bias", r"lacks mid_block\.resnets\.0\.spade"),
        ("model.diffusion_model.", "is not whole"),
    ],
)
def test_a_damaged_adapter_is_named(tmp_path, adapter, base, lost, said):
    state = load_file(adapter / "adapter.safetensors")
    save_file({key: v for key, v in state.items() if not key.startswith(lost)}, tmp_path / "adapter.safetensors")
    with pytest.raises(WeightsError, match=said):
        open_stablesr(choice(tmp_path / "adapter.safetensors", base), Store())


def test_a_base_of_other_widths_is_named():
    with pytest.raises(WeightsError, match="not for this base"):
        build_from_weights(
            Path("adapter"), spade.build_modulation, narrow(), {"mlp_shared.0.weight": torch.zeros(128, 32, 3, 3)}
        )


def narrow() -> UNet2DConditionModel:
    """Of widths that no norm of 32 groups divides."""
    sizes = {"block_out_channels": (16, 16), "norm_num_groups": 8, "layers_per_block": 1, "cross_attention_dim": 8}
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return UNet2DConditionModel(**sizes, **kinds, attention_head_dim=2)


def test_filling_up_keeps_the_picture_and_reaches_the_unit():
    source = torch.rand(1, 3, 13, 16)
    filled = pad_to_multiple(source, 8)
    assert filled.shape == (1, 3, 16, 16)
    assert torch.equal(filled[:, :, :13], source)
    assert torch.equal(filled[:, :, 15], source[:, :, 12])
