"""Prompts: what is said, and how it is cut into tokens."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTextModel, CLIPTokenizer

from srcli.engines.latent.prompts import TextEncoder, build_positive_prompt
from srcli.engines.runtime.device import Device
from srcli.tasks import COLORIZE, UPSCALE

BASE = Path(__file__).parents[2] / "golden" / "pasd" / "tiny" / "base"


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    net = CLIPTextModel.from_pretrained(BASE / "text_encoder").eval()
    tokenizer = CLIPTokenizer.from_pretrained(BASE / "tokenizer")
    return TextEncoder(tokenizer, net, Device(torch.device("cpu"), torch.float32))


@pytest.mark.parametrize(
    ("task", "text", "caption", "want"),
    [
        (UPSCALE, "", "", "clean, high-resolution, 8k"),
        (UPSCALE, "my dog", "", "my dog, clean, high-resolution, 8k"),
        (UPSCALE, "", "a blurry, noisy dog", "a clear, clean dog, clean, high-resolution, 8k"),
        (UPSCALE, "my dog ", " a dog ", "a dog, my dog, clean, high-resolution, 8k"),
        (COLORIZE, "", "a black and white photo of a dog", "a color photo of a dog"),
        (COLORIZE, "", "", ""),
    ],
)
def test_what_is_said(task, text: str, caption: str, want: str) -> None:
    assert build_positive_prompt(task, text, caption) == want


@given(st.integers(0, 400))
def test_no_word_is_lost(encoder: TextEncoder, count: int) -> None:
    pieces = encoder.pieces("dog " * count)
    ends = {encoder.tokenizer.bos_token_id, encoder.tokenizer.eos_token_id}
    assert all(len(piece) == 77 for piece in pieces)
    words = [token for piece in pieces for token in piece if token not in ends]
    assert words == encoder.tokenizer("dog " * count, add_special_tokens=False, verbose=False).input_ids
    assert len(pieces) == max(1, -(-len(words) // 75))


def test_texts_get_as_many_pieces_as_the_longest(encoder: TextEncoder) -> None:
    both = encoder.encode(["a dog", "dog " * 200])
    assert both.shape[1] % 77 == 0
    assert both.shape[1] > 77
    torch.testing.assert_close(both[0, :77], encoder.encode(["a dog"])[0])
    torch.testing.assert_close(both[0, 77:154], encoder.encode([""])[0])


def test_a_tokenizer_without_a_limit_has_the_encoders(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder.tokenizer, "model_max_length", int(1e30))
    assert encoder.length == 75
    assert encoder.encode(["dog"]).shape[1] == 77
