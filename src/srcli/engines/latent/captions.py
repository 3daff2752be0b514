"""Describe a picture in words: a caption, an ImageNet category, or a count of the detected objects."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
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


class CaptionReader(ABC):
    """A model that describes pictures, and its preprocessor, by the names of their classes in transformers."""

    model: str
    preprocessor = "AutoImageProcessor"

    def __init__(self, folder: Path, device: Device) -> None:
        dtype = device.dtype if device.accelerated else torch.float32
        self.net: Any = load_component(getattr(transformers, self.model), folder)
        self.net.requires_grad_(False).to(device.torch, dtype)
        self.processor = _load_pretrained(getattr(transformers, self.preprocessor), folder)

    @abstractmethod
    def read(self, picture: Pixels8) -> str:
        """The description; empty if the model is not sure."""

    def prepare(self, picture: Pixels8) -> Tensor:
        pixels: Tensor = self.processor(picture, return_tensors="pt").pixel_values
        return pixels.to(self.net.device, self.net.dtype)


class Captioner(CaptionReader):
    """BLIP, which writes captions."""

    model, preprocessor = "BlipForConditionalGeneration", "BlipImageProcessor"

    def __init__(self, folder: Path, device: Device) -> None:
        super().__init__(folder, device)
        self.tokenizer = _load_pretrained(transformers.AutoTokenizer, folder)

    def read(self, picture: Pixels8) -> str:
        ids = self.net.generate(pixel_values=self.prepare(picture), max_new_tokens=MAX_CAPTION_TOKENS)
        return str(self.tokenizer.decode(ids[0], skip_special_tokens=True)).strip()


class Classifier(CaptionReader):
    """An ImageNet classifier."""

    model = "AutoModelForImageClassification"

    def read(self, picture: Pixels8) -> str:
        score, index = self.net(self.prepare(picture)).logits[0].float().softmax(0).max(0)
        if float(score) < MIN_CATEGORY_SCORE:
            return ""
        return str(self.net.config.id2label[int(index)]).split(",")[0]


class Detector(CaptionReader):
    """A detector of everyday objects (COCO)."""

    model = "AutoModelForObjectDetection"

    def read(self, picture: Pixels8) -> str:
        found = self.net(self.prepare(picture))
        objects = self.processor.post_process_object_detection(found, threshold=MIN_DETECTION_SCORE)[0]
        labels = Counter(self.net.config.id2label[int(label)] for label in objects["labels"])
        return ", ".join(f"{count} {label}" for label, count in labels.most_common())


READERS: Mapping[str, type[CaptionReader]] = {"caption": Captioner, "classify": Classifier, "detect": Detector}


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
        silence_libraries()  # the import of these classes warns of a missing torchvision
        located = self.store.resolve(name or MODELS[kind][0], allow_pickle=self.allow_pickle)
        return READERS[kind](located.folder, self.device)

    def _is_usable(self, name: str) -> bool:
        entry = self.store.lock().get(name)
        pickled = entry is not None and any(file.pickled for file in entry.files.values())
        return self.store.has(name) and (self.allow_pickle or not pickled)


def tensor_to_pixels(picture: Tensor) -> Pixels8:
    """(1, 3, H, W), integers or floats in 0..1, as (H, W, 3) 8-bit pixels."""
    if picture.dtype is torch.uint8:
        return picture[0].permute(1, 2, 0).numpy()
    return (to_unit_float(picture)[0].float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _load_pretrained(cls: Any, folder: Path) -> Any:
    with library_errors(folder, "pull the captioner again"):
        return cls.from_pretrained(folder, local_files_only=True)
