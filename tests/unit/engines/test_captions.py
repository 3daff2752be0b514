"""Words for pictures: real transformers models, tiny ones, made on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    ConvNextImageProcessor,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
)

from srcli.engines.latent.captions import NO_CAPTIONER, Captioner, Classifier, Describer, Detector, tensor_to_pixels
from srcli.engines.runtime.device import Device
from srcli.errors import WeightsError
from srcli.weights.store import Store

CPU = Device(torch.device("cpu"), torch.float32)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", "a", "photo", "of", "dog"]
PICTURE = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BlipConfig(
        text_config=small | {"vocab_size": len(WORDS), "bos_token_id": 4, "eos_token_id": 3, "pad_token_id": 0},
        vision_config=small | {"image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    config.text_config.encoder_hidden_size = 16
    torch.manual_seed(0)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resnet")
    labels = {0: "tabby, tabby cat", 1: "dog"}
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", id2label=labels)
    torch.manual_seed(0)
    net = ResNetForImageClassification(config)
    with torch.no_grad():
        net.classifier[1].bias.copy_(torch.tensor([9.0, 0.0]))
    net.save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.9).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detr")
    backbone = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=3,
        id2label={0: "dog", 1: "cat"},
    )
    torch.manual_seed(0)
    net = DetrForObjectDetection(config)
    with torch.no_grad():
        net.class_labels_classifier.weight.zero_()
        net.class_labels_classifier.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    net.save_pretrained(folder)
    DetrImageProcessor(size={"shortest_edge": 32, "longest_edge": 64}).save_pretrained(folder)
    return folder


def test_blip_says_words_of_its_own(blip: Path) -> None:
    said = Captioner(blip, CPU).read(PICTURE)
    assert said
    assert set(said.split()) <= set(WORDS)


def test_a_category_without_its_synonyms(resnet: Path) -> None:
    assert Classifier(resnet, CPU).read(PICTURE) == "tabby"


def test_an_unsure_category_is_none(resnet: Path) -> None:
    reader = Classifier(resnet, CPU)
    reader.net.classifier[1] = torch.nn.Linear(8, 20).requires_grad_(False)
    torch.nn.init.zeros_(reader.net.classifier[1].weight)
    torch.nn.init.zeros_(reader.net.classifier[1].bias)
    assert reader.read(PICTURE) == ""


def test_things_are_counted(detr: Path) -> None:
    assert Detector(detr, CPU).read(PICTURE) == "3 dog"


def test_auto_without_a_captioner_says_so_once(said: list[str]) -> None:
    describer = Describer(Store(offline=True), CPU)
    for _ in range(2):
        assert describer.describe(torch.rand(1, 3, 8, 8), "auto") == ""
    assert said == [NO_CAPTIONER]


def test_none_opens_nothing() -> None:
    assert Describer(None, CPU).describe(torch.rand(1, 3, 8, 8), "none") == ""


def test_a_captioner_that_is_asked_for_and_missing_is_an_error() -> None:
    with pytest.raises(WeightsError, match="pull"):
        Describer(Store(offline=True), CPU).describe(torch.rand(1, 3, 8, 8), "caption")


def test_a_folder_that_is_no_captioner(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        Captioner(tmp_path, CPU)


def test_levels_are_rounded() -> None:
    assert tensor_to_pixels(torch.tensor([0.0, 0.499 / 255, 0.501 / 255, 2.0]).expand(1, 3, 1, 4)).tolist() == [
        [[0] * 3, [0] * 3, [1] * 3, [255] * 3]
    ]
