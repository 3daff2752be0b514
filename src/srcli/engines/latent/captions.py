"""What a picture shows, in words: a caption, a category, or a count of the things in it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from srcli.engines.runtime.device import Device
from srcli.imaging.picture import Pixels8
from srcli.sampling.hint import to_unit_float
from srcli.weights.open import library_errors, load_component, silence_libraries
from srcli.weights.store import Store

log = logging.getLogger(__name__)

SURE_OF_KIND = 0.1  # below this a category is a guess
SURE_OF_THING = 0.7
WORDS = 30  # tokens of a caption
NO_CAPTIONER = "no captioner is here, so pictures go undescribed: srcli models pull blip-large, or `caption` none"
MODELS: Mapping[str, tuple[str, ...]] = {
    "caption": ("blip-large", "blip"),
    "classify": ("resnet",),
    "detect": ("detr",),
}


class CaptionReader(Protocol):
    """A model that says what a picture shows."""

    def read(self, picture: Pixels8) -> str:
        """In words; nothing where it is not sure."""
        ...


@dataclass(frozen=True)
class Captioner:
    """BLIP."""

    net: Any
    processor: Any
    tokenizer: Any

    @classmethod
    def open(cls, folder: Path, device: Device) -> Captioner:
        from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessor

        net = _placed(load_component(BlipForConditionalGeneration, folder), device)
        return cls(net, _opened(BlipImageProcessor, folder), _opened(AutoTokenizer, folder))

    def read(self, picture: Pixels8) -> str:
        pixels = self.processor(picture, return_tensors="pt").pixel_values.to(self.net.device, self.net.dtype)
        ids = self.net.generate(pixel_values=pixels, max_new_tokens=WORDS)
        return str(self.tokenizer.decode(ids[0], skip_special_tokens=True)).strip()


@dataclass(frozen=True)
class Classify:
    """An ImageNet classifier."""

    net: Any
    processor: Any

    @classmethod
    def open(cls, folder: Path, device: Device) -> Classify:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        net = _placed(load_component(AutoModelForImageClassification, folder), device)
        return cls(net, _opened(AutoImageProcessor, folder))

    def read(self, picture: Pixels8) -> str:
        pixels = self.processor(picture, return_tensors="pt").pixel_values.to(self.net.device, self.net.dtype)
        score, index = self.net(pixels).logits[0].float().softmax(0).max(0)
        if float(score) < SURE_OF_KIND:
            return ""
        return str(self.net.config.id2label[int(index)]).split(",")[0]


@dataclass(frozen=True)
class Detect:
    """A detector of everyday things."""

    net: Any
    processor: Any

    @classmethod
    def open(cls, folder: Path, device: Device) -> Detect:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        net = _placed(load_component(AutoModelForObjectDetection, folder), device)
        return cls(net, _opened(AutoImageProcessor, folder))

    def read(self, picture: Pixels8) -> str:
        pixels = self.processor(picture, return_tensors="pt").pixel_values.to(self.net.device, self.net.dtype)
        found = self.processor.post_process_object_detection(self.net(pixels), threshold=SURE_OF_THING)[0]
        labels = Counter(self.net.config.id2label[int(label)] for label in found["labels"])
        return ", ".join(f"{count} {label}" for label, count in labels.most_common())


READERS: Mapping[str, type[Captioner] | type[Classify] | type[Detect]] = {
    "caption": Captioner,
    "classify": Classify,
    "detect": Detect,
}


@dataclass(frozen=True)
class Describer:
    """Describes pictures in the way that is asked for, with the models that are here."""

    store: Store
    device: Device
    allow_pickle: bool = False
    _readers: dict[str, CaptionReader | None] = field(default_factory=dict)

    def describe(self, hint: Tensor, how: str) -> str:
        """Words for a picture (1, 3, H, W). `auto` captions it if a captioner is here, and says if not."""
        if how == "none":
            return ""
        if how not in self._readers:
            self._readers[how] = self._find(how)
        reader = self._readers[how]
        return "" if reader is None else reader.read(tensor_to_pixels(hint))

    def _find(self, how: str) -> CaptionReader | None:
        kind = "caption" if how == "auto" else how
        name = next((name for name in MODELS[kind] if self._usable(name)), None)
        if name is None and how == "auto":
            log.info(NO_CAPTIONER)
            return None
        silence_libraries()  # the classes' modules warn of a missing torchvision when they are imported
        located = self.store.resolve(name or MODELS[kind][0], allow_pickle=self.allow_pickle)
        return READERS[kind].open(located.folder, self.device)

    def _usable(self, name: str) -> bool:
        entry = self.store.lock().get(name)
        pickled = entry is not None and any(file.pickled for file in entry.files.values())
        return self.store.has(name) and (self.allow_pickle or not pickled)


def tensor_to_pixels(picture: Tensor) -> Pixels8:
    if picture.dtype is torch.uint8:
        return picture[0].permute(1, 2, 0).numpy()
    return (to_unit_float(picture)[0].float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _placed(net: Any, device: Device) -> Any:
    return net.requires_grad_(False).to(device.torch, device.dtype if device.accelerated else torch.float32)


def _opened(cls: Any, folder: Path) -> Any:
    with library_errors(folder, "pull the captioner again"):
        return cls.from_pretrained(folder, local_files_only=True)
