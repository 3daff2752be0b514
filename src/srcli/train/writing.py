"""Write trained weights: safetensors, their configuration, and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

CONFIG_FILE, WEIGHTS_FILE = "config.json", "diffusion_pytorch_model.safetensors"


def write_component(
    folder: Path, state: Mapping[str, Tensor] | None, config: Mapping[str, Any], config_name: str = CONFIG_FILE
) -> None:
    """Write a network's folder in diffusers' layout; without a state only its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    if state is not None:
        write_tensors(folder / WEIGHTS_FILE, state)
    (folder / config_name).write_text(
        json.dumps(to_plain_json(config), indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def write_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(own, path, metadata={"format": "pt"})


def to_plain_json(value: Any) -> Any:
    """Settings as JSON types; other values become strings."""
    if is_dataclass(value):
        return {each.name: to_plain_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_plain_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain_json(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def write_card(path: Path, facts: Mapping[str, Any], weights_used: Mapping[str, str], command: str) -> None:
    """Write a model card: the initial weights, the data and all settings, enough to repeat the training."""
    licences = sorted({value for name, value in weights_used.items() if name.endswith(" licence") and value})
    weights = [f"- `{name}`: {value or 'not known'}" for name, value in weights_used.items()]
    lines = [
        f"# {facts['system']} adapter, {facts['step']} steps",
        "",
        f"Trained with srcli {facts['version']} on {facts['pictures']} pictures.",
        "",
        f"Licence of the initial weights: {', '.join(licences) or 'not known'}. Its terms also apply to these weights.",
        "",
        "## Use",
        "",
        "```console",
        command,
        "```",
        "",
        "## Initial weights",
        "",
        *(weights or ["- none: random"]),
        "",
        "## Recipe",
        "",
        "```json",
        json.dumps(to_plain_json(facts["settings"]), indent=1),
        "```",
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
