"""The full-size networks have exactly the official checkpoints' keys and shapes; no memory is behind them."""

import json

import torch
from diffusers import UNet2DConditionModel
from tests.golden.cases import Case, each

from srcli.models.control import build_control_net
from srcli.models.patches.paca import LightPaca, Paca
from srcli.models.stock import build_stock


def config_of(case: Case, name: str) -> dict:
    return json.loads((case.root / "manifest" / f"{name}.config.json").read_text())


def shapes(case: Case, name: str) -> dict[str, list[int]]:
    """Keys and shapes that our networks have for the part `name` of the system."""
    config, keys = config_of(case, name), keys_of(case, name)
    if name.endswith("_controlnet"):
        state = build_control_net(config, keys).state_dict()
    else:
        with torch.device("meta"):
            paca = (LightPaca if any("_plus" in key for key in keys) else Paca)(config)
        state = build_stock(UNet2DConditionModel, config).state_dict() | paca.state_dict()
    return {key: list(value.shape) for key, value in state.items()}


def keys_of(case: Case, name: str) -> dict[str, list[int]]:
    return json.loads((case.root / "manifest" / f"{name}.keys.json").read_text())


@each("pasd", "*.keys", folder="manifest")
def test_keys_and_shapes_are_the_official_ones(case: Case) -> None:
    name = case.name.removesuffix(".keys")
    assert shapes(case, name) == dict(case.notes)


@each("pasd", "*.config", folder="manifest")
def test_the_config_says_rrdb_as_the_keys_do(case: Case) -> None:
    name = case.name.removesuffix(".config")
    seen = any("preprocesser" in key for key in shapes(case, name))
    assert seen == bool(case.notes.get("use_rrdb"))


@each("pasd", "summary", folder="manifest")
def test_parameters_in_all(case: Case) -> None:
    counts = {name: value for name, value in case.notes.items() if isinstance(value, int) and value > 1}
    for name, count in counts.items():
        assert sum(torch.Size(shape).numel() for shape in shapes(case, name).values()) == count, name
