"""Configurations of Stable Diffusion 1.5 and 2.1 and CLIP's vocabulary, shipped in the package.

With them a single file needs no further download. `data/bases/NAME` has diffusers' layout; the vocabulary is derived
from CLIP's merges, which all bases share.
"""

from pathlib import Path
from typing import Any

from srcli.weights.local import Located
from srcli.weights.open import read_config

PACKAGED_BASES = Path(__file__).resolve().parent.parent / "data" / "bases"
MERGES = PACKAGED_BASES / "merges.txt"
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
WORD_END = "</w>"


def packaged_base(family: str) -> Located | None:
    """The packaged configurations of a family, in diffusers' layout; None if there are none."""
    if family not in ("sd15", "sd21"):
        return None
    return Located(family, "base", family, "apache-2.0", PACKAGED_BASES / family, {}, {})


def load_clip_tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer, with the padding token of the configuration in `folder`."""
    from transformers import CLIPTokenizer

    config = read_config(folder, "tokenizer_config.json")
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in read_merges())]
    vocabulary = {word: index for index, word in enumerate(list_words(merges))}
    return CLIPTokenizer(vocabulary, merges, pad_token=config["pad_token"], model_max_length=config["model_max_length"])


def read_merges() -> list[str]:
    """CLIP's merges, the most frequent first, without the file's version line."""
    return MERGES.read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]


def list_words(merges: list[tuple[str, str]]) -> list[str]:
    """CLIP's vocabulary in the order of its ids: bytes, bytes at the end of a word, merged tokens, special tokens."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    return [*letters, *(letter + WORD_END for letter in letters), *(a + b for a, b in merges), *SPECIAL]
