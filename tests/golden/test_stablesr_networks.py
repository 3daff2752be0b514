"""StableSR's networks against the official ones: encoder, modulation, UNet, VAE with feature wrapping, key lists."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from tests.golden.cases import ROOT, Case, cases, each, off_by
from tests.golden.stablesr_tiny import (
    UNET,
    VAE,
    assemble,
    checkpoint,
    led,
    tiny,
    under,
    wrapping_checkpoint,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from srcli.models.banded_vae import decode_in_bands, encode_in_bands
from srcli.models.cfw import keep_features
from srcli.models.patches.spade import to_diffusers_path
from srcli.models.row_bands import Bands
from srcli.models.time_encoder import embed_step
from srcli.weights.single import convert_open_clip

FORWARD = 2e-5
PHASE = 1e-4  # of sines of up to 999 radians: a frequency rounded the other way, by 2**-24, moves them by 6e-5
CPU = torch.device("cpu")


@each("stablesr", "v01*")
def test_timestep_embedding(case: Case) -> None:
    t, model = case.tensors["t"], tiny()
    for key, want in case.tensors.items():
        if key.startswith("emb_"):
            assert off_by(embed_step(t, int(key.removeprefix("emb_"))), want) < PHASE, key
    own = model.encoder.time_embed(embed_step(t, model.encoder.shape.first))
    assert off_by(own, case.tensors["time_embed_structcond"]) < PHASE
    stock = model.unet.time_embedding(model.unet.time_proj(t))
    assert off_by(stock, case.tensors["time_embed_unet"]) < PHASE


@each("stablesr", "v02*")
def test_time_aware_encoder(case: Case) -> None:
    for part in sorted({key.split(".")[0] for key in case.tensors if ".width" in key}):
        wide = case.tensors.get(f"latent_{part}")
        latent = case.tensors["latent"] if wide is None else wide
        step = case.tensors[f"t_{part}"] if f"t_{part}" in case.tensors else torch.tensor(int(part[1:]))
        maps = tiny().encoder(latent, step.expand(len(latent)))
        found = {f"{part}.width{x.shape[-1]}": x for x in maps}
        wanted = {key: v for key, v in case.tensors.items() if key.startswith(f"{part}.")}
        assert found.keys() == wanted.keys()
        for key, want in wanted.items():
            assert off_by(found[key], want) < FORWARD, key


@each("stablesr", "v03*")
def test_modulated_residual_block(case: Case) -> None:
    model, guide = tiny(), case.tensors["segmap"]
    block = model.modulation.get_submodule(path_of(case.notes["spade"]))
    assert off_by(block(case.tensors["x"], guide), case.tensors["spade_out"]) < FORWARD
    for name, x, want in (("resblock", "x", "resblock_out"), ("up_resblock", "up_x", "up_resblock_out")):
        resnet = model.unet.get_submodule(path_of(case.notes[name]))
        with model.modulation.leading([guide] * len(model.unet.down_blocks)):
            got = resnet(case.tensors[x], case.tensors["emb"])
        assert off_by(got, case.tensors[want]) < FORWARD, name


def path_of(official: str) -> str:
    return to_diffusers_path(official.removeprefix(UNET))


@each("stablesr", "v04*")
def test_unet(case: Case) -> None:
    model, seen = tiny(), {}
    stats = {key: v for key, v in case.notes["block_stats"].items() if ends_in_resnet(key)}

    def keep(key: str, _site: nn.Module, _args: object, out: torch.Tensor) -> None:
        seen.setdefault(key, out)

    hooks = []
    for key in stats:
        resnet = to_diffusers_path(f"{key}.0" if key != "middle_block" else "middle_block.2")
        hooks.append(model.unet.get_submodule(resnet).register_forward_hook(partial(keep, key)))
    got = predict(case)
    for hook in hooks:
        hook.remove()
    for key, (_, mean, deviation) in stats.items():
        assert abs(seen[key][0].mean() - mean) + abs(seen[key][0].std() - deviation) < 1e-3, key
    assert off_by(got, case.tensors["eps"]) < FORWARD


def predict(case: Case) -> torch.Tensor:
    """Each item of the batch may have a step and a text of its own."""
    rows = zip(*(case.tensors[key].split(1) for key in ("x", "t", "cond_latent", "context")), strict=True)
    return torch.cat([led(context)(x, t, latent) for x, t, latent, context in rows])


def ends_in_resnet(official: str) -> bool:
    """Whether an official block's output is that of its residual block (no attention, no resampling after it)."""
    if official == "middle_block":
        return True
    inner = under(checkpoint(), f"{UNET}{official}.")
    return {key.split(".")[0] for key in inner} == {"0"} and any(key.startswith("0.spade.") for key in inner)


@each("stablesr", "v05*")
def test_vae_and_feature_wrapping(case: Case) -> None:
    vae, tensors, bands, seen = tiny().vae, case.tensors, Bands(area=1000), {}
    moments = encode_in_bands(vae, tensors["image_u8"].float() / 255 * 2 - 1, bands, keep_features(seen))
    assert off_by(moments, tensors["moments"]) < FORWARD
    for index, shape in enumerate(case.notes["enc_fea_full_shapes"]):
        kept = seen[index + 1]
        assert list(kept.shape) == shape
        assert abs(kept.norm() / case.notes["enc_fea_norms"][index] - 1) < 1e-4
        want = tensors[f"enc_fea{index}"]
        every = [slice(None, None, own // few) for own, few in zip(kept.shape, want.shape, strict=True)]
        assert off_by(kept[tuple(every)], want) < FORWARD
    assert off_by(decode_in_bands(vae, tensors["z"], bands), tensors["plain_decode"]) < FORWARD
    for key in (key for key in tensors if key.startswith("cfw_decode_w")):
        weight = float(key.removeprefix("cfw_decode_w"))
        mix = tiny().wrapping.mixing(seen, weight, bands, CPU)
        assert off_by(decode_in_bands(vae, tensors["z"], bands, mix), tensors[key]) < FORWARD, key


@each("stablesr", "v05*")
@pytest.mark.parametrize("area", [1, 37, 1 << 16])
def test_one_fusion_layer(case: Case, area: int) -> None:
    """In bands of one row, of a few, and in one piece."""
    for key, weight in (("fuse_out_w1", 1.0), ("fuse_out_w025", 0.25)):
        made = case.tensors["fuse_dec"]
        got = made + weight * tiny().wrapping.fusion(1).run(case.tensors["fuse_enc"], made, Bands(area), CPU)
        assert off_by(got, case.tensors[key]) < FORWARD, key


@each("stablesr", "v04*")
@torch.no_grad()
def test_an_unled_unet_is_the_base(case: Case) -> None:
    model, x, context = tiny(), case.tensors["x"], case.tensors["context"]
    base = UNet2DConditionModel.from_config(model.unet.config).eval()
    base.load_state_dict(model.unet.state_dict())
    assert off_by(model.unet(x, 5, context).sample, base(x, 5, context).sample) < FORWARD


cases("stablesr", "configs", "manifest")  # read beside the key lists
cases("stablesr", "summary", "manifest")


def full_size(name: str) -> dict:
    path = ROOT / "stablesr" / "manifest" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def same_keys(module: nn.Module, state: dict[str, torch.Tensor], source: Path) -> nn.Module:
    own = {key: tuple(v.shape) for key, v in module.state_dict().items()}
    assert own == {key: tuple(v.shape) for key, v in state.items()}, source
    return module


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return {key: torch.empty(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("name", [name for name in full_size("configs") if name.startswith("v2_")])
@each("stablesr", "stablesr_*", "manifest")
def test_full_size_keys(case: Case, name: str) -> None:
    summary, official = full_size("summary"), full_size("configs")[name]
    state, extra = on_meta(case.notes), on_meta(full_size("cfw_vqgan"))
    model = assemble(state, extra, official, same_keys)
    counts = summary[{"v2_finetune_text_T_768v": "sr768v", "v2_finetune_face_T_512": "face512"}.get(name, "sr512")]
    assert len(model.modulation.state_dict()) == counts["spade_keys"]
    assert parameters(model.modulation) == counts["spade"]
    assert parameters(model.encoder) == counts["structcond"]
    assert parameters(model.unet) == counts["unet_without_spade"]
    assert parameters(model.vae) == counts["first_stage"]
    assert parameters(model.wrapping) == summary["cfw"]["fusion_params"]
    assert len(model.wrapping.state_dict()) == summary["cfw"]["fusion_keys"]


@each("stablesr", "stablesr_*", "manifest")
def test_full_size_text_tower(case: Case) -> None:
    state = under(on_meta(case.notes), "cond_stage_model.model.")
    width, layers = state["ln_final.weight"].shape[0], len({k.split(".")[2] for k in state if ".resblocks." in k})
    words, places = (state[key].shape[0] for key in ("token_embedding.weight", "positional_embedding"))
    with torch.device("meta"):
        config = CLIPTextConfig(
            vocab_size=words,
            max_position_embeddings=places,
            hidden_size=width,
            intermediate_size=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            num_hidden_layers=layers - 1,  # the last layer is not looked at
        )
        tower = CLIPTextModel(config)
    own = {key.removeprefix("text_model."): v.shape for key, v in tower.state_dict().items()}
    got = convert_open_clip(Path("tower"), state, config.to_dict())
    assert {key: v.shape for key, v in got.items()} == {k: v for k, v in own.items() if "position_ids" not in k}


@each("stablesr", "cfw_*", "manifest")
def test_only_fusion_layers_need_be_taken_from_the_cfw_file(case: Case) -> None:
    """The rest is the base's own VAE, and a loss that nobody needs to sample."""
    if case.name.endswith("_ignore"):
        assert all(key.startswith("loss.") for key in case.notes)
        return
    left = {key for key in case.notes if not key.startswith("decoder.fusion_layer_")}
    assert left == {key.removeprefix(VAE) for key in full_size("stablesr_512") if key.startswith(VAE)}


@each("stablesr", "v05*")
def test_the_tiny_checkpoints_share_one_vae(case: Case) -> None:
    """So the VAE of the CFW file need not be loaded."""
    first, second = under(checkpoint(), VAE), wrapping_checkpoint()
    assert first.keys() == {key for key in second if not key.startswith(("decoder.fusion", "loss."))}
    assert all(torch.equal(second[key], tensor) for key, tensor in first.items())
