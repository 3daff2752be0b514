"""Embeddings of texts, kept on the disk where many pictures share them: then no text encoder need be opened."""

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
VISITING = replace(AMPLE, by_stage=True)  # the text encoder is on the device only while it works


@dataclass(frozen=True)
class PromptEncoder:
    """A base's tokenizer and text encoder, which is opened when a text is new. `kept`: where embeddings lie."""

    tokenizer: Any
    folder: Path
    family: str
    device: Device
    kept: Path | None
    _opened: dict[str, nn.Module] = field(default_factory=dict)

    @classmethod
    def open(cls, base: Located, family: str, device: Device, cache: Path) -> PromptEncoder:
        """Of a base in diffusers' layout. What is kept serves these weights on this device in this precision only."""
        hashes = sorted((path, digest) for path, digest in base.sha256.items() if path.startswith(TEXT_PARTS))
        made_by = json.dumps([hashes, str(device)]).encode()
        kept = cache / FOLDER / hashlib.sha256(made_by).hexdigest()[:16]
        return cls(load_tokenizer(base.part("tokenizer")), base.part("text_encoder"), family, device, kept)

    def with_network(self, net: nn.Module) -> PromptEncoder:
        """This one with a network that is not the base's own, so nothing that it makes is kept."""
        return replace(self, kept=None, _opened={KEY: place_network(net, self.device)})

    def encode(self, text: str, keep: bool) -> Tensor:
        """A text's embeddings, one row. `keep`: other pictures and runs will ask for the same text."""
        file = self._file(text) if keep and self.kept else None
        if file and (found := _read(file)) is not None:
            return found.to(self.device.torch)
        encoder = TextEncoder(self.tokenizer, self._net(), self.device, VISITING)
        encoder.report_pieces(text)
        made = encoder.encode([text])
        if file:
            _write(file, made)
        return made

    def _file(self, text: str) -> Path:
        name = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return (self.kept or Path()) / f"{name}.safetensors"

    def _net(self) -> nn.Module:
        if KEY not in self._opened:
            self._opened[KEY] = place_network(open_text_encoder(self.folder, self.family), self.device)
        return self._opened[KEY]


def _read(file: Path) -> Tensor | None:
    """What was kept; a file that cannot be read costs making it again."""
    if not is_file(file):
        return None
    try:
        return load_state(file)[KEY]
    except (WeightsError, KeyError):
        return None


def _write(file: Path, made: Tensor) -> None:
    with suppress(OSError):  # a read-only or full disk: the next run makes it again
        file.parent.mkdir(0o700, parents=True, exist_ok=True)
        with replace_file(file) as fresh:
            save_file({KEY: made.cpu().contiguous()}, fresh)
