"""Prompts: their tokens, in pieces of 77, and their embeddings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import AMPLE, Placement
from srcli.engines.runtime.oom_fallback import MemorySavings
from srcli.engines.runtime.placement import on_device, place_network
from srcli.tasks import Task

log = logging.getLogger(__name__)

END_TOKENS = 2  # tokens that open and close each piece


@dataclass(frozen=True)
class TextEncoder:
    """A CLIP tokenizer with its text encoder."""

    tokenizer: Any
    net: Any
    device: Device
    placement: Placement = AMPLE

    @classmethod
    def of(cls, tokenizer: Any, net: Any, device: Device, placement: Placement = AMPLE) -> TextEncoder:
        """The encoder with its network on the device."""
        with on_device(place_network(net, device), device, placement):
            return cls(tokenizer, net, device, placement)

    def with_less(self, savings: MemorySavings) -> TextEncoder:
        """The same encoder with these savings applied."""
        return replace(self, placement=self.placement.with_less(savings))

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embeddings, one row per text. All rows have as many pieces of 77 tokens as the longest text needs."""
        rows = [self.pieces(text) for text in texts]
        count = max(len(row) for row in rows)
        tokens = torch.tensor([row + [self._piece([])] * (count - len(row)) for row in rows])
        flat = tokens.flatten(0, 1).to(self.device.torch)
        with on_device(self.net, self.device, self.placement):
            embeddings: Tensor = self.net(flat).last_hidden_state
        return embeddings.reshape(len(rows), -1, embeddings.shape[-1])

    def pieces(self, text: str) -> list[list[int]]:
        """Token ids, cut into pieces of the encoder's length; at least one piece."""
        ids = self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
        length = self.length
        return [self._piece(ids[i : i + length]) for i in range(0, max(len(ids), 1), length)]

    def report_pieces(self, text: str) -> None:
        """Log if a text takes more than one piece."""
        if (count := len(self.pieces(text))) > 1:
            log.info(f"the prompt is longer than {self.length} tokens: it is read in {count} pieces")

    @property
    def length(self) -> int:
        """Tokens of text in one piece, without its start and end. Tokenizers without a configuration have no limit."""
        positions = int(self.net.config.max_position_embeddings)
        return min(int(self.tokenizer.model_max_length), positions) - END_TOKENS

    def _piece(self, ids: list[int]) -> list[int]:
        ends = [self.tokenizer.eos_token_id] + [self.tokenizer.pad_token_id] * (self.length - len(ids))
        return [self.tokenizer.bos_token_id, *ids, *ends]


def build_positive_prompt(task: Task, text: str, caption: str) -> str:
    """The positive prompt: caption, the user's text and the task's own words, joined by commas."""
    whole = join_phrases([caption, text])
    for word, better in task.replace_words:
        whole = whole.replace(word, better)
    return join_phrases([whole, task.added_prompt])


def join_phrases(parts: Iterable[str]) -> str:
    return ", ".join(part.strip() for part in parts if part.strip())
