"""A disk cache of prompt embeddings, so that runs with a known prompt need not load the text encoder."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from srcli.engines.latent.bases import load_tokenizer, open_text_encoder
from srcli.engines.latent.prompts import TextEncoder
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import AMPLE
from srcli.engines.runtime.placement import place_network
from srcli.errors import WeightsError
from srcli.files import is_file, replace_file
from srcli.weights.local import Located
from srcli.weights.open import load_state

TEXT_PARTS = ("text_encoder/", "tokenizer/")
FOLDER, KEY = "prompts", "embeddings"
ENCODER_PLACEMENT = replace(AMPLE, by_stage=True)  # on the device only while it encodes


@dataclass(frozen=True)
class PromptEncoder:
    """A base's tokenizer, and its text encoder, loaded when a text is not in the cache folder `kept`."""

    tokenizer: Any
    folder: Path
    family: str
    device: Device
    kept: Path | None
    _opened: dict[str, nn.Module] = field(default_factory=dict)

    @classmethod
    def open(cls, base: Located, family: str, device: Device, cache: Path) -> PromptEncoder:
        """For a base in diffusers' layout. The cache key includes the weights' hashes, the device and its precision."""
        hashes = sorted((path, digest) for path, digest in base.sha256.items() if path.startswith(TEXT_PARTS))
        key = json.dumps([hashes, str(device)]).encode()
        kept = cache / FOLDER / hashlib.sha256(key).hexdigest()[:16]
        return cls(load_tokenizer(base.part("tokenizer")), base.part("text_encoder"), family, device, kept)

    def with_network(self, net: nn.Module) -> PromptEncoder:
        """The same encoder with another network than the base's, and without a cache."""
        return replace(self, kept=None, _opened={KEY: place_network(net, self.device)})

    def encode(self, text: str, keep: bool) -> Tensor:
        """Embeddings of a text, one row. `keep`: cache them, since other pictures will use the same text."""
        file = self._file(text) if keep and self.kept else None
        if file and (cached := _read(file)) is not None:
            return cached.to(self.device.torch)
        encoder = TextEncoder(self.tokenizer, self._net(), self.device, ENCODER_PLACEMENT)
        encoder.report_pieces(text)
        embeddings = encoder.encode([text])
        if file:
            _write(file, embeddings)
        return embeddings

    def _file(self, text: str) -> Path:
        name = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return (self.kept or Path()) / f"{name}.safetensors"

    def _net(self) -> nn.Module:
        if KEY not in self._opened:
            self._opened[KEY] = place_network(open_text_encoder(self.folder, self.family), self.device)
        return self._opened[KEY]


def _read(file: Path) -> Tensor | None:
    """Cached embeddings; None if there are none or the file is unreadable, so that they are computed again."""
    if not is_file(file):
        return None
    try:
        return load_state(file)[KEY]
    except (WeightsError, KeyError):
        return None


def _write(file: Path, embeddings: Tensor) -> None:
    with suppress(OSError):  # a read-only or full disk: the next run computes them again
        file.parent.mkdir(0o700, parents=True, exist_ok=True)
        with replace_file(file) as fresh:
            save_file({KEY: embeddings.cpu().contiguous()}, fresh)
