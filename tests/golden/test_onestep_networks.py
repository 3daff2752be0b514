"""Files, merged weights and networks of the one-step models against the official programs' numbers."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from tests.golden.cases import Case, each, each_group, off_by, picture
from tests.golden.onestep_tiny import FILES, denoiser, program, text_parts, unet, vae

from srcli.engines.latent.codec import Codec
from srcli.engines.latent.prompts import TextEncoder
from srcli.engines.onestep.denoiser import Strengths
from srcli.engines.runtime.device import Device
from srcli.models.stock import build_stock
from srcli.weights.one_step import (
    ADAPTER_PARTS,
    LORA_ALPHA,
    OSEDIFF_KIND,
    PISA_KIND,
    PIXEL_PART,
    SEMANTIC_PART,
    flatten_part,
    read_changes,
)
from srcli.weights.pickles import to_safetensors

FP32 = Device(torch.device("cpu"), torch.float32)
MERGED, NETWORK, DECODED, TEXT = 1e-6, 2e-5, 1e-5, 1e-5


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("kind", FILES)
@each("onestep", "o05_decode*")
def test_a_published_pickle_becomes_the_flat_file(case: Case, kind: str, tmp_path) -> None:
    flat = case.root / "tiny" / FILES[kind]
    got = load_file(to_safetensors(flat.with_suffix(".pkl"), tmp_path / flat.name))
    want = load_file(flat)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)


@each("onestep", "o01_merged.osediff*")
def test_osediff_merged(case: Case) -> None:
    nets = {"unet": unet(case.root, OSEDIFF_KIND), "vae": vae(case.root, OSEDIFF_KIND)}
    for name, want in case.tensors.items():
        network, _, weight = name.partition(".")
        assert off_by(nets[network].state_dict()[weight], want) <= MERGED, name


@each("onestep", "o01_merged.pisa_sr*")
def test_pisa_merged(case: Case) -> None:
    parts = {"pix": (PIXEL_PART,), "both": (PIXEL_PART, SEMANTIC_PART)}
    for name, want in case.tensors.items():
        merged, _, weight = name.partition(".")
        assert off_by(unet(case.root, PISA_KIND, parts[merged]).state_dict()[weight], want) <= MERGED, name


def sizes(case: Case) -> list[str]:
    """The sizes of a case, with the point that closes them in its keys."""
    return sorted({key.partition(".")[0] + "." for key in case.tensors if key.partition(".")[0][0].isdigit()})


@each_group("onestep", "o?2_vae_encode*", sizes)
def test_encoded(case: Case, part: str) -> None:
    given, codec = case.under(part), Codec.of(vae(case.root, program(case)), FP32)
    shown = picture(given["image_u8"])
    mean, deviation = codec.posterior(shown)
    assert off_by(mean, given["mean"]) <= NETWORK
    assert off_by(2 * deviation.log(), given["logvar"].clamp(-30, 20)) <= NETWORK
    assert off_by(codec.encode(shown, given["noise"]), given["latent"]) <= NETWORK


@each_group("onestep", "o03_unet.osediff*", sizes)
def test_osediff_predictions(case: Case, part: str) -> None:
    check_prediction(case, part, OSEDIFF_KIND)


@each_group("onestep", "o12_unet.gdpo*", sizes)
def test_gdpo_predictions(case: Case, part: str) -> None:
    check_prediction(case, part, "gdpo")


def check_prediction(case: Case, part: str, kind: str) -> None:
    given = case.under(part)
    predict, t = denoiser(case.root, kind, case.tensors["context"]), torch.tensor(int(case.notes["timestep"]))
    assert off_by(predict(given["latent"], t, given["latent"]), given["eps"]) <= NETWORK


@pytest.mark.parametrize("one_by_one", [False, True])
@each_group("onestep", "o03_unet.pisa_sr*", sizes)
def test_pisa_predictions(case: Case, part: str, one_by_one: bool) -> None:
    """Every pair of strengths, the default and the pixel part alone."""
    given, t = case.under(part), torch.tensor(int(case.notes["timestep"]))
    latent = given.pop("latent")
    named = {"default": Strengths(), "pix": Strengths(1, 0)}
    named |= {f"pix{pix:g}_sem{sem:g}": Strengths(pix, sem) for pix, sem in json.loads(case.notes["pairs"])}
    assert given.keys() == named.keys()
    for name, strengths in named.items():
        predict = replace(denoiser(case.root, PISA_KIND, case.tensors["context"], strengths), one_by_one=one_by_one)
        assert off_by(predict(latent, t, latent), given[name]) <= NETWORK, name


@each_group("onestep", "o05_decode*", sizes)
def test_decoded(case: Case, part: str) -> None:
    check_decoded(case, part, "base")


@each_group("onestep", "o12_decode*", sizes)
def test_decoded_by_gdpo(case: Case, part: str) -> None:
    check_decoded(case, part, "gdpo")


def check_decoded(case: Case, part: str, kind: str) -> None:
    given = case.under(part)
    got = Codec.of(vae(case.root, kind), FP32).decode(given["x0"])
    assert off_by(got * 2 - 1, given["decoded"]) <= DECODED


@each("onestep", "o1?_text*")
def test_tokens_and_embeddings(case: Case) -> None:
    encoder = TextEncoder(*text_parts(case.root), FP32)
    for index, text in enumerate(json.loads(case.notes["texts"])):
        given = case.under(f"{index}.")
        assert encoder.pieces(text)[0] == given["ids"][0].tolist(), text
        first_piece = encoder.encode([text])[:, : given["embeds"].shape[1]]  # the official one is cut there
        assert off_by(first_piece, given["embeds"]) <= TEXT, text


CONFIGS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}


def full_size(case: Case) -> dict[str, torch.nn.Module]:
    """Full-size networks of the base, without memory behind them."""
    configs = json.loads((case.root / "manifest" / "base.configs.json").read_text())
    return {name: build_stock(cls, configs[name]) for name, cls in CONFIGS.items()}


@each("onestep", "base.configs", folder="manifest")
def test_sizes_of_the_base(case: Case) -> None:
    for name, net in full_size(case).items():
        assert sum(weight.numel() for weight in net.parameters()) == counts(case)["base"][name]


def counts(case: Case) -> dict:
    return json.loads((case.root / "manifest" / "summary.json").read_text())


@each("onestep", "summary", folder="manifest")
def test_counts_of_the_key_lists(case: Case) -> None:
    for name, said in case.notes.items():
        if name == "base":
            continue
        shapes = json.loads((case.root / "manifest" / f"{name}.keys.json").read_text()).values()
        assert (len(shapes), sum(torch.Size(shape).numel() for shape in shapes)) == (said["tensors"], said["numbers"])


@each("onestep", "osediff.modules", folder="manifest")
def test_module_lists_of_a_published_file(case: Case) -> None:
    """Each list names modules of the full-size networks that a LoRA may change."""
    nets = full_size(case)
    for name, modules in case.notes.items():
        known = set(dict(nets[name.partition("_")[0]].named_modules()))
        assert set(modules) <= known, name


@each("onestep", "*.keys", folder="manifest")
def test_keys_and_shapes_of_a_published_file(case: Case) -> None:
    """A file of these keys is read whole, and every change fits the full-size network that it is for."""
    kind = OSEDIFF_KIND if case.name.startswith("osediff") else PISA_KIND
    network = case.name.split("_")[-1].removesuffix(".keys")
    state = {name: torch.empty(shape, device="meta") for name, shape in case.notes.items()}
    said = counts(case)[case.name.removesuffix(".keys")]
    adapters = {adapter for part in ADAPTER_PARTS[kind] for adapter in part.lists}
    taken, weights = 0, dict(full_size(case)[network].named_parameters())
    for part in ADAPTER_PARTS[kind]:
        if not part.name.endswith(network):
            continue
        flat = flatten_part(case.file(".json"), part, state, adapters)
        changes = read_changes(case.file(".json"), flat, LORA_ALPHA, said.get(part.rank_key, said.get("rank")))
        taken += len(flat)
        assert all(pair.fits(weights[f"{module}.weight"]) for module, pair in changes.pairs.items())
        assert all(weights[name].shape == tensor.shape for name, tensor in changes.replaced.items())
    assert taken == len(state)
