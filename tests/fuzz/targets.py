"""What is fuzzed: each target takes bytes that came from outside, and may only return or raise an SrcliError.

A target reads as much as the program would with such a file, and nothing is mocked.
"""

from __future__ import annotations

import io
import json
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from hypothesis import strategies as st
from safetensors.torch import save

from srcli.batch.journal.file import read_records
from srcli.errors import SrcliError, WeightsError
from srcli.imaging.iptc import wrap_resource
from srcli.weights.families import detect_family
from srcli.weights.listing import NotTheHub, parse_commit
from srcli.weights.lock import parse_lock
from srcli.weights.lora import read_lora
from srcli.weights.open import load_state, read_config
from srcli.weights.overlay import format_lock
from srcli.weights.pickles import to_safetensors
from tests.fuzz import pictures
from tests.fuzz.mutate import odd_json, spoiled
from tests.unit.imaging.builders import ramp, saved, tiff

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """A parser, and where its input comes from."""

    run: Callable[[bytes], object]
    inputs: st.SearchStrategy[bytes]

    def __call__(self, data: bytes) -> bool:
        """Whether the input was accepted. Any exception but our own passes through: that is a finding."""
        try:
            self.run(data)
        except SrcliError as error:
            assert str(error) and "\n" not in str(error), f"no line to show a user: {error!r}"
            return False
        return True


@cache
def folder() -> Path:
    """A folder of this process for parsers that want a file."""
    return Path(tempfile.mkdtemp(prefix="srcli-fuzz-"))


def _written(name: str, data: bytes) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path


def read_lock(data: bytes) -> None:
    """Whatever is accepted is written and read again as the same."""
    entries = parse_lock(data.decode("utf-8", "replace"), Path("weights.lock"))
    assert parse_lock(format_lock(entries), Path("weights.lock")) == entries


def read_listing(data: bytes) -> None:
    try:
        commit = parse_commit("owner/name", data)
    except NotTheHub as error:
        raise WeightsError("the caller's line") from error
    for path in commit.files:
        assert (folder() / path).resolve().is_relative_to(folder().resolve())


def read_weights(data: bytes) -> None:
    path = _written("x.safetensors", data)
    detect_family(path)
    load_state(path)


def read_changes(data: bytes) -> None:
    for pairs in read_lora(_written("lora.safetensors", data)).parts.values():
        assert all(pair.rank > 0 for pair in pairs.values())


def read_pickle(data: bytes) -> None:
    path = _written("x.ckpt", data)
    out = folder() / "out.safetensors"
    to_safetensors(path, out)
    assert out.stat().st_size < 3 * len(data) + 10_000, "the conversion is much larger than the pickle"


def read_configuration(data: bytes) -> None:
    _written("config.json", data)
    read_config(folder())


LOCK = """schema = 1

[base]
kind = "base"
family = "sd15"
license = "mit"
repo = "owner/name"
revision = "0123456789012345678901234567890123456789"
about = 5
include = ["vae/*"]
needs = ["other/vae"]

[base.files]
"vae/config.json" = { size = 12, sha256 = "0123456789012345678901234567890123456789012345678901234567890123" }

[end]
entries = 1
"""
WORDS = (
    b"[end]",
    b"= ",
    b'"""',
    b"'''",
    b"{",
    b"[[",
    b"}",
    b"inf",
    b"nan",
    b"0x",
    b"1979-05-27",
    b"\\u",
    b"\n[base]\n",
)
SIBLINGS = [
    {"rfilename": "a/b.safetensors", "size": 5, "blobId": "0" * 40, "lfs": {"sha256": "1" * 64, "size": 5}},
    {"rfilename": "c.json", "size": 1, "blobId": "2" * 40},
]
LISTING = {"sha": "a" * 40, "siblings": SIBLINGS, "cardData": {"license": ["mit"]}, "private": False}
CONFIG = {"_class_name": "AutoencoderKL", "block_out_channels": [32, 64], "norm_num_groups": 32, "act_fn": "silu"}
PAIR = {
    "lora_unet_a_attn2_to_k.lora_down.weight": torch.ones(2, 4),
    "lora_unet_a_attn2_to_k.lora_up.weight": torch.ones(4, 2),
    "lora_unet_a_attn2_to_k.alpha": torch.tensor(2.0),
}
PEFT = {"unet.a.lora_A.weight": torch.ones(2, 4), "unet.a.lora_B.weight": torch.ones(4, 2)}
ALPHAS = {"unet.lora_alpha": 1, "unet.alpha_pattern": {"a": 1}}


@st.composite
def safetensors(draw: st.DrawFn) -> bytes:
    """A safetensors file whose header says anything, with a length that is right as a rule."""
    data = draw(st.sampled_from([save(PAIR), save(PEFT, {"lora_adapter_metadata": json.dumps(ALPHAS)})]))
    if draw(st.booleans()):
        return draw(spoiled([data]))
    length = int.from_bytes(data[:8], "little")
    header = draw(odd_json([json.loads(data[8 : 8 + length])]))
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


@st.composite
def peft(draw: st.DrawFn) -> bytes:
    """A sound LoRA whose metadata says anything, or whose tensors have any shape."""
    shape = st.lists(st.integers(0, 4), max_size=4)
    names = draw(st.lists(st.sampled_from([*PAIR, *PEFT]), min_size=1, unique=True))
    tensors = {name: torch.zeros(draw(shape)) if draw(st.booleans()) else (PAIR | PEFT)[name] for name in names}
    return bytes(save(tensors, {"lora_adapter_metadata": draw(odd_json([ALPHAS])).decode()}))


def _saved(value: object, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


STATE = {"state_dict": {"a": torch.ones(2, 3), "b": torch.nn.Parameter(torch.ones(4).half())}, "step": 3}
OPCODES = tuple(
    getattr(pickle, name) for name in pickle.__all__ if name.isupper() and isinstance(getattr(pickle, name), bytes)
)
GLOBALS = (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_sparse_tensor\n", b"cos\nsystem\n")


@st.composite
def checkpoints(draw: st.DrawFn) -> bytes:
    """A checkpoint of either form with spoiled opcodes; in the newer one the zip around them stays sound."""
    if draw(st.booleans()):
        return draw(spoiled([_saved(STATE, zipped=False), _saved(STATE)], (*OPCODES, *GLOBALS)))
    parts = {}
    with zipfile.ZipFile(io.BytesIO(_saved(STATE))) as old:
        parts = {info.filename: old.read(info) for info in old.infolist()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        for name, content in parts.items():
            new.writestr(name, draw(spoiled([content], (*OPCODES, *GLOBALS))) if name.endswith(".pkl") else content)
    return file.getvalue()


def read_journal(data: bytes) -> None:
    assert all(isinstance(record, dict) for record in read_records(_written("journal.jsonl", data)))


JOURNAL = [{"event": "picture", "source": "a.png", "target": "b.png", "state": "done", "stamp": [1, 2, 3], "key": "0"}]

TARGETS: Mapping[str, Target] = {
    "exif": Target(pictures.edit_exif, spoiled([pictures.exif_block("<"), pictures.exif_block(">")])),
    "xmp": Target(pictures.edit_xmp, spoiled([pictures.PACKET, pictures.GAIN], pictures.XML)),
    "iptc": Target(pictures.edit_iptc, spoiled([pictures.RECORDS, wrap_resource(pictures.RECORDS)])),
    "icc": Target(pictures.use_profile, spoiled([pictures.PROFILE, pictures.WIDE], pictures.TAGS)),
    "tiff checks": Target(pictures.check_tiff, spoiled([saved(ramp(4, 5), "TIFF"), tiff(ramp(4, 5))])),
    "picture": Target(pictures.read_and_write, spoiled(pictures.pictures())),
    "labelled png": Target(pictures.read_and_write, pictures.labelled()),
    "journal": Target(read_journal, odd_json(JOURNAL) | spoiled([b'{"event": "run"}\n' * 3])),
    "lock": Target(read_lock, spoiled([LOCK.encode()], WORDS)),
    "hub listing": Target(read_listing, odd_json([LISTING]) | spoiled([json.dumps(LISTING).encode()])),
    "configuration": Target(read_configuration, odd_json([CONFIG])),
    "safetensors": Target(read_weights, safetensors()),
    "lora": Target(read_changes, safetensors() | peft()),
    "pickle": Target(read_pickle, checkpoints()),
}
