"""Weight files: what their headers tell, strict opening, LoRA, single files, pickles."""

from __future__ import annotations

import collections
import json
import os
import struct
import sys
import tempfile
import types
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModel

from srcli.errors import WeightsError
from srcli.weights.blend import blend_unet
from srcli.weights.families import detect_family, require_family
from srcli.weights.header import hash_weights, read_header
from srcli.weights.lora import merge_lora, read_lora
from srcli.weights.open import load_component, load_into, load_state, read_config
from srcli.weights.parts import choose_files, weight_files
from srcli.weights.pickles import refuse_broken_torch, to_safetensors
from srcli.weights.single import convert_open_clip, load_text, open_single

GOLDEN = Path(__file__).parents[2] / "golden" / "pasd"
BASE, SINGLE = GOLDEN / "tiny" / "base", GOLDEN / "personalized" / "ldm_checkpoint_fp16.safetensors"
LORA = GOLDEN / "personalized" / "lora_kohya.safetensors"
UNET = BASE / "unet" / "diffusion_pytorch_model.safetensors"


def written(path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> Path:
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path, metadata)
    return path


LDM = "model.diffusion_model."
HEADS = {
    "sd15 checkpoint": (
        {LDM + "a.attn2.to_k.weight": (320, 768), LDM + "input_blocks.0.0.weight": (320, 4, 3, 3)},
        "sd15",
    ),
    "sd21 checkpoint": ({LDM + "a.attn2.to_k.weight": (320, 1024)}, "sd21"),
    "sdxl checkpoint": ({LDM + "a.attn2.to_k.weight": (640, 2048), "conditioner.embedders.0.x": (1,)}, "sdxl"),
    "sdxl-refiner checkpoint": ({LDM + "a.attn2.to_k.weight": (640, 1280)}, "sdxl-refiner"),
    "sd21 stablesr": (
        {
            LDM + "a.attn2.to_k.weight": (320, 1024),
            LDM + "input_blocks.0.0.weight": (320, 4, 3, 3),
            "structcond_stage_model.x": (1,),
        },
        "sd21",
    ),
    "sd21 stablesr-adapter": ({"structcond_stage_model.x": (1,)}, "sd21"),
    "any cfw": ({"decoder.fusion_layer_1.x": (1,)}, "any"),
    "sd15 lora": (
        {"lora_unet_x_attn2_to_k.lora_down.weight": (4, 768), "lora_unet_x_attn2_to_k.lora_up.weight": (2, 4)},
        "sd15",
    ),
    "any lora": ({"text_encoder.x.lora_A.weight": (1, 1)}, "any"),
    "sd21 unet": (
        {
            "up_blocks.0.resnets.0.time_emb_proj.weight": (1, 1),
            "a.attn2.to_k.weight": (1, 1024),
            "conv_in.weight": (1, 4, 3, 3),
        },
        "sd21",
    ),
    "sd15 text-encoder": ({"text_model.embeddings.token_embedding.weight": (9, 768)}, "sd15"),
    "any vae": ({"decoder.mid.block_1.conv1.weight": (1,)}, "any"),
    "any tiny-vae": ({"decoder.layers.0.weight": (1,)}, "any"),
    "any unknown": ({"something": (1,)}, "any"),
}


@pytest.mark.parametrize("row", HEADS)
def test_the_header_tells_the_family(row: str, tmp_path: Path) -> None:
    shapes, family = HEADS[row]
    found = detect_family(written(tmp_path / "x.safetensors", shapes))
    assert str(found) == row and found.family == family


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("pasd/unet", "pasd-unet"),
        ("pasd_light/unet", "pasd-light-unet"),
        ("pasd/controlnet", "pasd-control"),
        ("base/vae", "vae"),
    ],
)
def test_official_files_are_told_apart(folder: str, kind: str) -> None:
    (path,) = weight_files(GOLDEN / "tiny" / folder)
    assert detect_family(path).kind == kind


@pytest.mark.parametrize(("channels", "said"), [(9, "in-painting"), (8, "instruction"), (5, "depth")])
def test_models_with_other_inputs_are_refused(channels: int, said: str, tmp_path: Path) -> None:
    shapes = {LDM + "a.attn2.to_k.weight": (1, 768), LDM + "input_blocks.0.0.weight": (1, channels, 3, 3)}
    path = written(tmp_path / "x.safetensors", shapes)
    with pytest.raises(WeightsError, match=f"{said}.*sd15 checkpoint is needed"):
        require_family(detect_family(path), path, kind="checkpoint", family="sd15")


def test_a_file_that_is_no_model_is_refused_in_plain_words(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors", {"something": (1,)})
    with pytest.raises(WeightsError, match="this is no model that srcli knows, and sd15 checkpoint is needed"):
        require_family(detect_family(path), path, kind="checkpoint", family="sd15")


def test_v_prediction_is_read_where_a_file_says_so(tmp_path: Path) -> None:
    shapes = {LDM + "x": (1,)}
    path = tmp_path / "x.safetensors"
    assert detect_family(written(path, shapes)).prediction is None
    assert detect_family(written(path, shapes, {"modelspec.prediction_type": "v"})).prediction == "v_prediction"
    assert detect_family(written(path, shapes, {"modelspec.prediction_type": "epsilon"})).prediction == "epsilon"
    assert detect_family(written(path, shapes | {"v_pred": (0,)})).prediction == "v_prediction"


def header(text: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ONE = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
TWO = json.dumps({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}).encode()
BROKEN = {
    "empty": (b"", "not a whole"),
    "header too long": (header(ONE, b"1234", 2**62), "not a whole"),
    "header cut": (header(ONE)[:20], "not a whole"),
    "data cut": (header(ONE, b"12"), "not a whole"),
    "data too long": (header(ONE, b"123456"), "not a whole"),
    "overlap": (header(TWO, b"1234"), "not a whole"),
    "hole": (header(ONE.replace(b"[0, 4]", b"[4, 8]"), b"12345678"), "not a whole"),
    "overflow": (header(ONE.replace(b"[1]", b"[9223372036854775807, 9]"), b"1234"), "not a whole"),
    "bad dtype": (header(ONE.replace(b"F32", b"F99"), b"1234"), "not a whole"),
    "no json": (header(b"{hello"), "not a whole"),
    "login page": (b"<!doctype html><html>" * 9, "web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 4\n", "Git LFS pointer"),
    "zip pickle": (b"PK\x03\x04" + b"x" * 90, "pickle"),
    "raw pickle": (b"\x80\x02}q\x00." + b"x" * 90, "pickle"),
}


@pytest.mark.parametrize("row", BROKEN)
def test_what_is_not_whole_safetensors_is_refused_with_what_it_seems(row: str, tmp_path: Path) -> None:
    content, said = BROKEN[row]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    for read in (read_header, load_state):
        with pytest.raises(WeightsError, match=said) as error:
            read(path)
        assert "\n" not in str(error.value) and str(path) in str(error.value)


WHOLE = header(ONE, b"1234")


@given(st.integers(0, len(WHOLE)), st.integers(0, 12), st.binary(max_size=12))
def test_a_mangled_file_is_read_or_refused_and_nothing_else(start: int, cut: int, put_in: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(WHOLE[:start] + put_in + WHOLE[start + cut :])
        try:
            shapes = read_header(path).shapes
        except WeightsError as error:
            assert str(path) in str(error)
        else:
            assert all(isinstance(shape, tuple) for shape in shapes.values())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for read in (read_header, load_state, hash_weights):
        with pytest.raises(WeightsError, match="x.safetensors"):
            read(tmp_path / "x.safetensors")


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors", {"a.x": (2,), "a.y": (3,), "b.x": (4,)})
    assert sorted(load_state(path, "a.")) == ["x", "y"]
    assert list(load_state(path, "a.", ["y"])) == ["y"]
    with pytest.raises(WeightsError, match=r"lacks a\.z"):
        load_state(path, "a.", ["y", "z"])


def empty(cls: type[nn.Module], config: dict[str, object]) -> nn.Module:
    with torch.device("meta"):
        return cls.from_config(config)


def linear() -> nn.Linear:
    return nn.Linear(3, 2)


def test_every_wrong_key_is_named_with_the_file() -> None:
    state = {"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}
    with pytest.raises(WeightsError) as error:
        load_into(linear(), state, "some.safetensors")
    said = str(error.value)
    assert said.startswith("some.safetensors: lacks bias, has unknown extra, has mis-shaped weight ((2, 4) for (2, 3))")


def test_a_refused_state_leaves_the_module_as_it_was() -> None:
    module = linear()
    before = module.weight.clone()
    with pytest.raises(WeightsError):
        load_into(module, {"weight": torch.zeros(2, 3)}, "x")
    assert torch.equal(module.weight, before)


def test_a_model_on_the_meta_device_takes_the_tensors_as_they_are() -> None:
    state = load_state(UNET)
    unet = load_into(empty(UNet2DConditionModel, read_config(BASE / "unet")), state, UNET)
    assert all(torch.equal(tensor, state[name]) for name, tensor in unet.state_dict().items())
    with torch.device("meta"):
        module = nn.BatchNorm1d(2)
        module.register_buffer("hidden", torch.zeros(1), persistent=False)
    filled = {name: torch.zeros(tensor.shape) for name, tensor in module.state_dict().items()}
    with pytest.raises(WeightsError, match="gives nothing for hidden"):
        load_into(module, filled, "x")


@pytest.mark.parametrize(
    ("cls", "part"), [(UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"), (CLIPTextModel, "text_encoder")]
)
def test_components_open_whole(cls: type[nn.Module], part: str) -> None:
    module = load_component(cls, BASE / part)
    assert not module.training and not any(tensor.is_meta for tensor in module.parameters())


def component(tmp_path: Path, change: collections.abc.Callable[[dict[str, torch.Tensor]], object]) -> Path:
    state = load_file(UNET)
    change(state)
    save_file(state, tmp_path / UNET.name, {"format": "pt"})
    (tmp_path / "config.json").write_bytes((BASE / "unet" / "config.json").read_bytes())
    return tmp_path


CHANGES = {
    "lacks conv_in.bias": lambda state: state.pop("conv_in.bias"),
    "has unknown surprise": lambda state: state.update(surprise=torch.zeros(1)),
    "conv_in.bias": lambda state: state.update({"conv_in.bias": torch.zeros(99)}),
}


@pytest.mark.parametrize("said", CHANGES)
def test_an_incomplete_component_is_refused_where_diffusers_would_log(said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said) as error:
        load_component(UNet2DConditionModel, component(tmp_path, CHANGES[said]))
    assert UNET.name in str(error.value) or str(tmp_path) in str(error.value)


def test_a_half_precision_variant_is_taken_where_there_is_no_other(tmp_path: Path) -> None:
    folder = component(tmp_path, lambda state: None)
    (folder / UNET.name).rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    assert load_component(UNet2DConditionModel, folder).config["layers_per_block"] == 2


def test_a_folder_of_pickles_or_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no safetensors"):
        weight_files(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(WeightsError, match="only the pickle pytorch_model.bin"):
        load_component(CLIPTextModel, tmp_path)
    with pytest.raises(WeightsError, match="no such folder"):
        weight_files(tmp_path / "nowhere")


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    for content in ("{", "[]"):
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
        with pytest.raises(WeightsError, match="not a configuration"):
            read_config(tmp_path)


def test_which_files_of_a_repository_are_the_model() -> None:
    listing = [
        "README.md",
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
        "text_encoder/flax_model.msgpack",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "old/pytorch_model.bin",
        "old/scaler.pt",
    ]
    left_out = {"README.md", "unet/diffusion_pytorch_model.bin", "text_encoder/flax_model.msgpack", "old/scaler.pt"}
    variants = {f"unet/diffusion_pytorch_model.{kind}.safetensors" for kind in ("fp16", "non_ema")}
    assert set(choose_files(listing)) == set(listing) - left_out - variants


# --- single files


def test_a_single_file_opens_with_the_configurations_of_a_folder() -> None:
    single = open_single(SINGLE, BASE, "width32")
    assert single.missing == ()
    load_into(empty(UNet2DConditionModel, read_config(BASE / "unet")), single.unet, SINGLE)
    load_into(empty(AutoencoderKL, read_config(BASE / "vae")), single.vae or {}, SINGLE)
    text = load_component(CLIPTextModel, BASE / "text_encoder")
    load_text(text, single.text or {}, SINGLE)
    name = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
    assert torch.equal(text.final_layer_norm.weight, load_state(SINGLE)[name].float())


def test_a_single_file_may_lack_the_vae_and_says_so(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in load_file(SINGLE).items() if name.startswith("model.")}
    save_file(state, tmp_path / "x.safetensors")
    assert open_single(tmp_path / "x.safetensors", BASE, "width32").missing == ("vae", "text_encoder")


def test_a_single_file_of_another_family_is_refused_from_its_header() -> None:
    with pytest.raises(WeightsError, match="this is width32 checkpoint, and sd15 checkpoint is needed"):
        open_single(SINGLE, BASE, "sd15")


def test_a_key_that_conversion_would_lose_is_an_error(tmp_path: Path) -> None:
    save_file(load_file(SINGLE) | {LDM + "controlnet.x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"unknown model\.diffusion_model\.controlnet\.x"):
        open_single(tmp_path / "x.safetensors", BASE, "width32")


def test_a_missing_key_is_found_when_the_parts_are_loaded(tmp_path: Path) -> None:
    state = load_file(SINGLE)
    state.pop(LDM + "out.2.weight")
    save_file(state, tmp_path / "x.safetensors")
    unet = open_single(tmp_path / "x.safetensors", BASE, "width32").unet
    with pytest.raises(WeightsError, match=r"lacks conv_out\.weight"):
        load_into(empty(UNet2DConditionModel, read_config(BASE / "unet")), unet, "x")


def test_open_clip_towers_become_transformers_ones() -> None:
    width, layers = 4, 1
    shapes = {
        "token_embedding.weight": (5, width),
        "positional_embedding": (7, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
        "text_projection": (width, width),
    }
    block = {
        "ln_1": (width,),
        "ln_2": (width,),
        "attn.out_proj": (width, width),
        "mlp.c_fc": (8, width),
        "mlp.c_proj": (width, 8),
    }
    for name, shape in block.items():
        shapes |= {f"transformer.resblocks.0.{name}.weight": shape, f"transformer.resblocks.0.{name}.bias": shape[:1]}
    shapes |= {
        "transformer.resblocks.0.attn.in_proj_weight": (12, width),
        "transformer.resblocks.0.attn.in_proj_bias": (12,),
    }
    state = {name: torch.rand(shape) for name, shape in shapes.items()}
    config = {"num_hidden_layers": layers, "hidden_size": width}
    renamed = convert_open_clip(Path("x"), state, config)
    key = renamed["encoder.layers.0.self_attn.k_proj.weight"]
    assert torch.equal(key, state["transformer.resblocks.0.attn.in_proj_weight"][4:8])
    from transformers import CLIPTextConfig

    made = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=5,
            hidden_size=4,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=7,
        )
    )
    load_text(made, renamed, Path("x"))
    with pytest.raises(WeightsError, match=r"lacks cond_stage_model\.model\.transformer\.resblocks\.1"):
        convert_open_clip(Path("x"), state, config | {"num_hidden_layers": 2})


# --- LoRA


class Net(nn.Module):
    """Two weights under names such as a UNet has."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"to_q": nn.Linear(3, 4, bias=False), "proj": nn.Conv2d(3, 4, 1)})


DOWN, UP = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, 1.0]]), torch.arange(8.0).reshape(4, 2)
FORMS = {
    "kohya": ("lora_unet_block_to_q.lora_down.weight", "lora_unet_block_to_q.lora_up.weight"),
    "peft": ("unet.block.to_q.lora_A.weight", "unet.block.to_q.lora_B.weight"),
    "diffusers": ("unet.block.to_q.lora.down.weight", "unet.block.to_q.lora.up.weight"),
    "processors": ("unet.block.processor.to_q_lora.down.weight", "unet.block.processor.to_q_lora.up.weight"),
}


def lora_file(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file(tensors, path / "lora.safetensors", metadata)
    return path / "lora.safetensors"


@pytest.mark.parametrize("form", FORMS)
def test_every_naming_reaches_the_same_weight(form: str, tmp_path: Path) -> None:
    down, up = FORMS[form]
    net = Net()
    before = net.block["to_q"].weight.clone()
    lora = read_lora(lora_file(tmp_path, {down: DOWN, up: UP}))
    assert merge_lora(lora, {"unet": net}, 0.5) == 1
    torch.testing.assert_close(net.block["to_q"].weight, before + 0.5 * UP @ DOWN)


def test_alpha_counts_unless_the_official_rule_is_asked_for(tmp_path: Path) -> None:
    down, up = FORMS["kohya"]
    lora = read_lora(lora_file(tmp_path, {down: DOWN, up: UP, "lora_unet_block_to_q.alpha": torch.tensor(1.0)}))
    changes = []
    for use_alpha in (True, False):
        net = Net()
        before = net.block["to_q"].weight.clone()
        merge_lora(lora, {"unet": net}, 1.0, use_alpha)
        changes.append(net.block["to_q"].weight - before)
    torch.testing.assert_close(changes[0], 0.5 * changes[1])


def test_alpha_is_read_from_pefts_metadata(tmp_path: Path) -> None:
    down, up = FORMS["peft"]
    said = {"unet.lora_alpha": 6, "unet.alpha_pattern": {}}
    lora = read_lora(lora_file(tmp_path, {down: DOWN, up: UP}, {"lora_adapter_metadata": json.dumps(said)}))
    assert lora.parts["unet"]["block_to_q"].alpha == 6
    special = said | {"unet.alpha_pattern": {"block.to_q": 3}}
    lora = read_lora(lora_file(tmp_path, {down: DOWN, up: UP}, {"lora_adapter_metadata": json.dumps(special)}))
    assert lora.parts["unet"]["block_to_q"].alpha == 3


def test_kernels_of_one_point_are_merged_too(tmp_path: Path) -> None:
    names = ("lora_unet_block_proj.lora_down.weight", "lora_unet_block_proj.lora_up.weight")
    net = Net()
    before = net.block["proj"].weight.clone()
    pair = {names[0]: DOWN[:, :, None, None].contiguous(), names[1]: UP[:, :, None, None].contiguous()}
    merge_lora(read_lora(lora_file(tmp_path, pair)), {"unet": net})
    torch.testing.assert_close(net.block["proj"].weight, before + (UP @ DOWN)[:, :, None, None])


def test_a_vae_is_merged_into_as_any_part(tmp_path: Path) -> None:
    names = ("vae.block.to_q.lora_A.weight", "vae.block.to_q.lora_B.weight")
    net, lora = Net(), read_lora(lora_file(tmp_path, dict(zip(names, (DOWN, UP), strict=True))))
    before = net.block["to_q"].weight.clone()
    with pytest.raises(WeightsError, match="also changes the VAE"):
        merge_lora(lora, {"unet": net})
    assert merge_lora(lora, {"unet": Net(), "vae": net}) == 1
    torch.testing.assert_close(net.block["to_q"].weight, before + UP @ DOWN)


def test_half_a_lora_is_refused_and_nothing_merged(tmp_path: Path) -> None:
    down, up = FORMS["kohya"]
    other = {name.replace("to_q", "to_z"): tensor for name, tensor in ((down, DOWN.clone()), (up, UP.clone()))}
    net = Net()
    before = net.block["to_q"].weight.clone()
    with pytest.raises(WeightsError, match="block_to_z is not in this UNet"):
        merge_lora(read_lora(lora_file(tmp_path, {down: DOWN, up: UP} | other)), {"unet": net})
    assert torch.equal(net.block["to_q"].weight, before)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({FORMS["kohya"][0]: DOWN, FORMS["kohya"][1]: torch.ones(5, 2)}, "changes a 5x3 weight and this UNet has 4x3"),
        ({FORMS["kohya"][0]: torch.ones(2, 9), FORMS["kohya"][1]: UP}, "changes a 4x9 weight"),
        ({FORMS["kohya"][0]: torch.ones(3, 3), FORMS["kohya"][1]: UP}, "changes a"),
        ({FORMS["kohya"][0]: DOWN}, "lacks its up weight"),
        ({"lora_unet_x.hada_w1_a": DOWN}, "no plain LoRA"),
        ({"elsewhere.lora_A.weight": DOWN, "elsewhere.lora_B.weight": UP}, "names no UNet, text encoder or VAE"),
        ({"lora_te_x.lora_down.weight": DOWN, "lora_te_x.lora_up.weight": UP}, "also changes the text encoder"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused(tensors: dict[str, torch.Tensor], said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said):
        merge_lora(read_lora(lora_file(tmp_path, tensors)), {"unet": Net()})


def test_an_official_lora_finds_all_its_places() -> None:
    unet = load_component(UNet2DConditionModel, BASE / "unet")
    text = load_component(CLIPTextModel, BASE / "text_encoder")
    lora = read_lora(LORA)
    assert merge_lora(lora, {"unet": unet, "text_encoder": text}) == sum(map(len, lora.parts.values())) == 198


# --- blending


def test_blending_keeps_what_the_file_lacks_and_refuses_what_does_not_fit() -> None:
    own = {"a": torch.ones(2), "b": torch.ones(2)}
    blended = blend_unet(own, {"a": torch.full((2,), 3.0, dtype=torch.float16)}, 0.25, "x")
    assert torch.equal(blended["a"], torch.full((2,), 1.5)) and blended["b"] is own["b"]
    for other in ({"c": torch.ones(2)}, {"a": torch.ones(3)}):
        with pytest.raises(WeightsError, match="adapter's family"):
            blend_unet(own, other, 0.5, "x")


# --- pickles


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/srcli-was-here",)


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class as a training program leaves in its checkpoints."""
    module = types.ModuleType("pytorch_lightning")
    made = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning"})
    module.ModelCheckpoint = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_lightning", module)
    return made


def test_only_the_state_of_a_pickle_is_converted(
    tmp_path: Path, lightning: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    state = {"a": weight, "view": weight[:1], "turned": weight.T}
    torch.save({"state_dict": state, "callbacks": {lightning: {"best": 3}}, "epoch": 7}, tmp_path / "x.ckpt")
    monkeypatch.delitem(sys.modules, "pytorch_lightning")
    out = to_safetensors(tmp_path / "x.ckpt", tmp_path / "out" / "x.safetensors")
    found = load_file(out)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items()) and len(found) == 3
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(zipped: bool, tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {"a": torch.ones(1)}, "x": Evil()}, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(WeightsError, match="holds more than weights"):
        to_safetensors(tmp_path / "x.ckpt", tmp_path / "x.safetensors")
    assert not Path("/tmp/srcli-was-here").exists()
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x02garbage", b"<html>"])
def test_a_damaged_pickle_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.ckpt"):
        to_safetensors(tmp_path / "x.ckpt", tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "found", [[1], {"state_dict": {}}, {"state_dict": {"a": 1}}, {"state_dict": {3: torch.ones(1)}}]
)
def test_a_pickle_without_a_plain_state_is_refused(found: object, tmp_path: Path) -> None:
    torch.save(found, tmp_path / "x.ckpt")
    with pytest.raises(WeightsError, match="use a safetensors file"):
        to_safetensors(tmp_path / "x.ckpt", tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("version", "good"), [("2.5.1", False), ("2.9.1+cu128", False), ("2.10.0", True), ("3.0.0a1", True)]
)
def test_torch_versions_with_broken_weights_only_loading_are_refused(version: str, good: bool) -> None:
    if good:
        refuse_broken_torch(version)
    else:
        with pytest.raises(WeightsError, match="can run code"):
            refuse_broken_torch(version)
