"""Prompts as the networks read them: tokens, in as many pieces as it takes, and their embeddings."""

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
        """With its network where it belongs."""
        with on_device(place_network(net, device), device, placement):
            return cls(tokenizer, net, device, placement)

    def with_less(self, savings: MemorySavings) -> TextEncoder:
        """This one, leaving the device when it has done its part."""
        return replace(self, placement=self.placement.with_less(savings))

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embeddings, one row a text. All get as many pieces of 77 tokens as the longest needs."""
        rows = [self.pieces(text) for text in texts]
        count = max(len(row) for row in rows)
        tokens = torch.tensor([row + [self._piece([])] * (count - len(row)) for row in rows])
        flat = tokens.flatten(0, 1).to(self.device.torch)
        with on_device(self.net, self.device, self.placement):
            found: Tensor = self.net(flat).last_hidden_state
        return found.reshape(len(rows), -1, found.shape[-1])

    def pieces(self, text: str) -> list[list[int]]:
        """Token ids in pieces as long as the encoder reads at once; at least one."""
        ids = self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
        length = self.length
        return [self._piece(ids[i : i + length]) for i in range(0, max(len(ids), 1), length)]

    def report_pieces(self, text: str) -> None:
        """Log that a text is too long to be read at once, if it is."""
        if (count := len(self.pieces(text))) > 1:
            log.info(f"the prompt is longer than {self.length} tokens: it is read in {count} pieces")

    @property
    def length(self) -> int:
        """Words' tokens that one piece holds."""
        return int(self.tokenizer.model_max_length) - END_TOKENS

    def _piece(self, ids: list[int]) -> list[int]:
        ends = [self.tokenizer.eos_token_id] + [self.tokenizer.pad_token_id] * (self.length - len(ids))
        return [self.tokenizer.bos_token_id, *ids, *ends]


def build_positive_prompt(task: Task, text: str, caption: str) -> str:
    """What the result shall show: the caption, the user's words and the task's own, joined by commas."""
    whole = join_phrases([caption, text])
    for word, better in task.replace_words:
        whole = whole.replace(word, better)
    return join_phrases([whole, task.added_prompt])


def join_phrases(parts: Iterable[str]) -> str:
    return ", ".join(part.strip() for part in parts if part.strip())
