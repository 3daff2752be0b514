"""Describe a picture in words: a caption, an ImageNet category, or a count of the detected objects."""

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

MIN_CATEGORY_SCORE = 0.1  # below this a category is a guess
MIN_DETECTION_SCORE = 0.7
MAX_CAPTION_TOKENS = 30
NO_CAPTIONER = "no captioner is here, so pictures go undescribed: srcli models pull blip-large, or `caption` none"
MODELS: Mapping[str, tuple[str, ...]] = {
    "caption": ("blip-large", "blip"),
    "classify": ("resnet",),
    "detect": ("detr",),
}


class CaptionReader(Protocol):
    """A model that describes pictures."""

    def read(self, picture: Pixels8) -> str:
        """The description; empty if the model is not sure."""
        ...


@dataclass(frozen=True)
class Captioner:
    """BLIP, which writes captions."""

    net: Any
    processor: Any
    tokenizer: Any

    @classmethod
    def open(cls, folder: Path, device: Device) -> Captioner:
        from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessor

        net = _place(load_component(BlipForConditionalGeneration, folder), device)
        return cls(net, _load_pretrained(BlipImageProcessor, folder), _load_pretrained(AutoTokenizer, folder))

    def read(self, picture: Pixels8) -> str:
        pixels = self.processor(picture, return_tensors="pt").pixel_values.to(self.net.device, self.net.dtype)
        ids = self.net.generate(pixel_values=pixels, max_new_tokens=MAX_CAPTION_TOKENS)
        return str(self.tokenizer.decode(ids[0], skip_special_tokens=True)).strip()


@dataclass(frozen=True)
class Classifier:
    """An ImageNet classifier."""

    net: Any
    processor: Any

    @classmethod
    def open(cls, folder: Path, device: Device) -> Classifier:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        net = _place(load_component(AutoModelForImageClassification, folder), device)
        return cls(net, _load_pretrained(AutoImageProcessor, folder))

    def read(self, picture: Pixels8) -> str:
        pixels = self.processor(picture, return_tensors="pt").pixel_values.to(self.net.device, self.net.dtype)
        score, index = self.net(pixels).logits[0].float().softmax(0).max(0)
        if float(score) < MIN_CATEGORY_SCORE:
            return ""
        return str(self.net.config.id2label[int(index)]).split(",")[0]


@dataclass(frozen=True)
class Detector:
    """A detector of everyday objects (COCO)."""

    net: Any
    processor: Any

    @classmethod
    def open(cls, folder: Path, device: Device) -> Detector:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        net = _place(load_component(AutoModelForObjectDetection, folder), device)
        return cls(net, _load_pretrained(AutoImageProcessor, folder))

    def read(self, picture: Pixels8) -> str:
        pixels = self.processor(picture, return_tensors="pt").pixel_values.to(self.net.device, self.net.dtype)
        objects = self.processor.post_process_object_detection(self.net(pixels), threshold=MIN_DETECTION_SCORE)[0]
        labels = Counter(self.net.config.id2label[int(label)] for label in objects["labels"])
        return ", ".join(f"{count} {label}" for label, count in labels.most_common())


READERS: Mapping[str, type[Captioner] | type[Classifier] | type[Detector]] = {
    "caption": Captioner,
    "classify": Classifier,
    "detect": Detector,
}


@dataclass(frozen=True)
class Describer:
    """Describes pictures with the caption models on this disk, loaded on first use."""

    store: Store
    device: Device
    allow_pickle: bool = False
    _readers: dict[str, CaptionReader | None] = field(default_factory=dict)

    def describe(self, hint: Tensor, how: str) -> str:
        """A description of a picture (1, 3, H, W). `how`: "none", or a kind of model; "auto" is a caption if a
        captioner is here, and logs it if not."""
        if how == "none":
            return ""
        if how not in self._readers:
            self._readers[how] = self._find(how)
        reader = self._readers[how]
        return "" if reader is None else reader.read(tensor_to_pixels(hint))

    def _find(self, how: str) -> CaptionReader | None:
        kind = "caption" if how == "auto" else how
        name = next((name for name in MODELS[kind] if self._is_usable(name)), None)
        if name is None and how == "auto":
            log.info(NO_CAPTIONER)
            return None
        silence_libraries()  # importing these classes warns of a missing torchvision
        located = self.store.resolve(name or MODELS[kind][0], allow_pickle=self.allow_pickle)
        return READERS[kind].open(located.folder, self.device)

    def _is_usable(self, name: str) -> bool:
        entry = self.store.lock().get(name)
        pickled = entry is not None and any(file.pickled for file in entry.files.values())
        return self.store.has(name) and (self.allow_pickle or not pickled)


def tensor_to_pixels(picture: Tensor) -> Pixels8:
    """(1, 3, H, W), integers or floats in 0..1, as (H, W, 3) 8-bit pixels."""
    if picture.dtype is torch.uint8:
        return picture[0].permute(1, 2, 0).numpy()
    return (to_unit_float(picture)[0].float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _place(net: Any, device: Device) -> Any:
    return net.requires_grad_(False).to(device.torch, device.dtype if device.accelerated else torch.float32)


def _load_pretrained(cls: Any, folder: Path) -> Any:
    with library_errors(folder, "pull the captioner again"):
        return cls.from_pretrained(folder, local_files_only=True)
