"""Weight files made to harm: no hang, no memory beyond the file's own size, and one line instead of a traceback."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from srcli.engines.latent.bases import load_tokenizer
from srcli.errors import SrcliError, WeightsError
from srcli.weights.families import detect_family
from srcli.weights.lock import parse_lock, read_lock, safe_path
from srcli.weights.lora import read_lora
from srcli.weights.open import load_component, read_config
from srcli.weights.overlay import read_overlay, write_entry
from srcli.weights.pickles import to_safetensors
from srcli.weights.single import convert_open_clip, convert_unet
from srcli.weights.trust import Stamps

GOLDEN = Path(__file__).parents[2] / "golden" / "pasd"
BASE = GOLDEN / "tiny" / "base"
ONE = torch.ones(1)
NESTED = "[" * 100_000

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")

UNPLAIN = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "meta": lambda: torch.ones(3, device="meta"),
    "half complex": lambda: torch.ones(3, dtype=torch.complex32),
    "no type at all": lambda: torch.ones(4, dtype=torch.uint8).view(torch.bits8),
}


@pytest.mark.filterwarnings("ignore")  # torch calls its own sparse tensors a beta
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("row", UNPLAIN)
def test_a_pickle_of_anything_but_plain_tensors_is_refused(row: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": {"x": UNPLAIN[row]()}}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="x.ckpt"):
        to_safetensors(path, tmp_path / "out.safetensors")
    assert not list(tmp_path.glob("*safetensors"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("count", [2 * 10**9, 10**11])
def test_a_small_pickle_cannot_ask_for_much_memory(count: int, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    huge = torch.as_strided(ONE, (count,), (0,))
    torch.save({"state_dict": {"x": huge}}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=f"claims {4 * count:,} bytes"):
        to_safetensors(path, tmp_path / "out.safetensors")


def test_many_views_of_one_tensor_are_too_much_and_two_are_not(tmp_path: Path) -> None:
    path, out, whole = tmp_path / "x.ckpt", tmp_path / "out.safetensors", torch.arange(9000.0)
    torch.save({"embedding": whole, "head": whole}, path)
    assert load_file(to_safetensors(path, out)).keys() == {"embedding", "head"}
    torch.save({str(number): whole for number in range(9)}, path)
    with pytest.raises(WeightsError, match="claims"):
        to_safetensors(path, out)


def test_a_pickle_with_a_name_that_safetensors_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"\ud800": ONE}, path)
    with pytest.raises(WeightsError, match="cannot be converted"):
        to_safetensors(path, tmp_path / "out.safetensors")


def lora(tmp_path: Path, metadata: dict[str, str] | None = None, **tensors: torch.Tensor) -> Path:
    pair = {"lora_down.weight": torch.ones(2, 4), "lora_up.weight": torch.ones(4, 2)}
    given = {name.replace("_weight", ".weight"): tensor for name, tensor in tensors.items()}
    path = tmp_path / "x.safetensors"
    save_file({f"lora_unet_a.{name}": tensor for name, tensor in (pair | given).items()}, path, metadata)
    return path


LORAS = {
    "two alphas": {"alpha": torch.ones(2)},
    "no alpha": {"alpha": torch.ones(0)},
    "complex alpha": {"alpha": torch.ones(1, dtype=torch.complex64)},
    "infinite alpha": {"alpha": torch.tensor(torch.inf)},
    "rank 0": {"lora_down_weight": torch.ones(0, 4), "lora_up_weight": torch.ones(4, 0)},
    "numbers": {"lora_down_weight": torch.tensor(1.0), "lora_up_weight": torch.tensor(1.0)},
    "vectors": {"lora_down_weight": torch.ones(2), "lora_up_weight": torch.ones(2)},
    "a number and a matrix": {"lora_down_weight": torch.tensor(1.0)},
}


@pytest.mark.parametrize("row", LORAS)
def test_a_lora_of_odd_shapes_is_refused(row: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="get the file again"):
        read_lora(lora(tmp_path, **LORAS[row]))


@pytest.mark.parametrize("text", [NESTED, "[]", '{"unet.lora_alpha": 1' + "0" * 400 + "}", "1" * 5000])
def test_odd_metadata_of_a_lora_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    pair = {"unet.a.lora_A.weight": torch.ones(2, 4), "unet.a.lora_B.weight": torch.ones(4, 2)}
    save_file(pair, path, {"lora_adapter_metadata": text})
    with pytest.raises(WeightsError, match="get the file again"):
        read_lora(path)


@pytest.mark.parametrize(
    "shapes",
    [
        {"model.diffusion_model.a.attn2.to_k.weight": (768,)},
        {"up_blocks.0.resnets.0.time_emb_proj.weight": (), "a.attn2.to_k.weight": ()},
        {"text_model.embeddings.token_embedding.weight": ()},
        {"text_model.embeddings.token_embedding.weight": (7,)},
        {"lora_unet_a_attn2_to_k.lora_down.weight": (4,)},
    ],
)
def test_a_header_of_odd_shapes_tells_no_family(shapes: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "x.safetensors")
    assert detect_family(tmp_path / "x.safetensors").family == "any"


def test_original_weights_of_odd_shapes_are_refused() -> None:
    unet = {name: ONE for name in ("time_embed.0.weight", "input_blocks.0.0.weight", "input_blocks.1.0.x")}
    with pytest.raises(WeightsError, match="original layout"):
        convert_unet(Path("x"), unet, {"layers_per_block": "many"})
    names = ("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias")
    inner = ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
    state = {name: ONE[0] for name in names}
    state |= {f"transformer.resblocks.0.{name}.{end}": ONE[0] for name in inner for end in ("weight", "bias")}
    state |= {f"transformer.resblocks.0.attn.in_proj_{end}": ONE[0] for end in ("weight", "bias")}
    with pytest.raises(WeightsError, match="mis-shaped"):
        convert_open_clip(Path("x"), state, {"num_hidden_layers": 1, "hidden_size": 4})
    with pytest.raises(WeightsError, match="gives no size"):
        convert_open_clip(Path("x"), state, {"num_hidden_layers": [], "hidden_size": None})


CONFIGS = {
    "nested": NESTED,
    "a long number": "1" * 5000,
    "a list": "[]",
    "large": " " * (5 << 20) + "{}",
}


@pytest.mark.parametrize("row", CONFIGS)
def test_a_configuration_that_is_none_is_refused(row: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(CONFIGS[row])
    with pytest.raises(WeightsError, match="not a configuration"):
        read_config(tmp_path)


@pytest.mark.parametrize("text", [NESTED, "[]", "null", '{"block_out_channels": 7}', '{"norm_num_groups": 0}'])
def test_a_component_with_a_strange_configuration_is_refused(text: str, tmp_path: Path) -> None:
    shutil.copytree(BASE / "vae", tmp_path / "vae")
    (tmp_path / "vae" / "config.json").write_text(text)
    with pytest.raises(WeightsError, match="verify or pull it again"):
        load_component(AutoencoderKL, tmp_path / "vae")


@pytest.mark.parametrize("text", ["#version: 0.2\na\n", "\x00", "a b c\n" * 9])
def test_malformed_merges_are_refused(text: str, tmp_path: Path) -> None:
    shutil.copytree(BASE / "tokenizer", tmp_path / "tokenizer")
    for old in (tmp_path / "tokenizer").glob("tokenizer.json"):
        old.unlink()
    (tmp_path / "tokenizer" / "merges.txt").write_text(text)
    with pytest.raises(WeightsError, match="get the base model again"):
        load_tokenizer(tmp_path / "tokenizer")


FRAME = "schema = 1\n{}\n[end]\nentries = 0\n"
LOCKS = {
    "nested": "a = " + NESTED,
    "a long number": "a = " + "1" * 5000,
    "a key of many parts": ".".join("a" * 50_000) + " = 1",
    "an impossible date": "a = 2020-99-99",
}


@pytest.mark.parametrize("row", LOCKS)
def test_a_lock_made_to_harm_is_refused(row: str) -> None:
    with pytest.raises(WeightsError, match=r"x\.lock:\d+: "):
        parse_lock(FRAME.format(LOCKS[row]), Path("x.lock"))


def test_a_lock_of_any_size_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text(FRAME.format("# so many words\n" * 400_000))
    with pytest.raises(WeightsError, match="larger than"):
        read_lock(path)


@pytest.mark.parametrize(
    "field", ["about = -1", "about = " + "9" * 400, "files = {a = {size = 9999999999999999999999}}"]
)
def test_a_size_that_cannot_be_is_refused(field: str) -> None:
    text = f'schema = 1\n[a]\nkind = "vae"\nfamily = "x"\nlicense = "x"\ninclude = ["*"]\n{field}\n[end]\nentries = 1\n'
    with pytest.raises(WeightsError, match="bytes"):
        parse_lock(text, Path("x.lock"))


@pytest.mark.parametrize("path", ["a\ud800", "a\udcff", "a\nb", "a\x1b[31m", "é" * 130])
def test_paths_that_no_disk_or_lock_can_hold_are_unsafe(path: str) -> None:
    assert not safe_path(path)


@needs_pipes
@pytest.mark.parametrize("name", ["weights.lock", ".lock"])
def test_a_pipe_in_place_of_the_users_lock_is_an_error(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    entry = parse_lock(
        'schema = 1\n[a]\nkind = "vae"\nfamily = "x"\nlicense = "x"\ninclude = ["*"]\n[end]\nentries = 1\n', Path("x")
    )["a"]
    with pytest.raises(SrcliError, match="not a regular file"):
        write_entry(tmp_path / "weights.lock", entry)


@needs_pipes
def test_a_link_in_place_of_the_guard_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(SrcliError, match=r"weights\.lock: cannot be written"):
        write_entry(tmp_path / "weights.lock", None)  # type: ignore[arg-type]
    assert (tmp_path / "precious").read_text() == "precious"


@needs_pipes
def test_a_pipe_in_place_of_a_record_or_configuration_never_hangs(tmp_path: Path) -> None:
    for name in ("stamps.json", "config.json", "weights.lock"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "x").write_bytes(b"x")
    assert Stamps(tmp_path / "stamps.json").known(tmp_path / "x") is False
    with pytest.raises(WeightsError, match="not a regular file"):
        read_config(tmp_path)
    with pytest.raises(WeightsError, match="not a regular file"):
        read_overlay(tmp_path / "weights.lock")


def test_a_nested_record_only_costs_reading_again(tmp_path: Path) -> None:
    (tmp_path / "stamps.json").write_text(json.dumps({"a": 1})[:-1] + ', "b": ' + NESTED)
    (tmp_path / "x").write_bytes(b"x")
    assert len(Stamps(tmp_path / "stamps.json").sha256(tmp_path / "x")) == 64
