"""What this processor can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def read_cpu_features() -> Mapping[str, Any]:
    """What torch knows of the processor, by its own names; nothing, where torch is too old to be asked."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    return ask() if ask else {}
