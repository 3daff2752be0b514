"""A look at what a picture is becoming: a small file, decoded from the latents that the scheduler expects."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from time import monotonic

from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn.functional import interpolate

from srcli import __version__
from srcli.engines.latent.captions import tensor_to_pixels
from srcli.engines.runtime.device import Device
from srcli.engines.runtime.memory_budget import AMPLE
from srcli.engines.runtime.placement import place_step_networks
from srcli.imaging.picture import Picture
from srcli.imaging.write import write_picture
from srcli.memory import release_memory
from srcli.weights.open import load_component
from srcli.weights.store import Store

log = logging.getLogger(__name__)

PREVIEW_DECODER = "taesd"
PREVIEW_INTERVAL = 5.0  # seconds from one to the next
PREVIEW_TIME_SHARE = 0.05  # of the time that they may take
MAX_PREVIEW_LATENTS = 64 * 64  # latents of one: its maps want no more memory than a step's
MADE = {"tool": f"srcli {__version__}", "preview": True}


class Preview:
    """The file, and the tiny decoder that makes it. It draws nothing at random and leaves the latents as they are."""

    def __init__(self, file: Path, net: AutoencoderTiny) -> None:
        self._file, self._net, self._due = file, net, 0.0

    @classmethod
    def open(cls, file: Path, device: Device, store: Store) -> Preview:
        net = load_component(AutoencoderTiny, store.resolve(PREVIEW_DECODER, "preview").folder)
        place_step_networks([net], device, AMPLE)
        return cls(file, net)

    def show(self, latents: Tensor) -> None:
        """Renew the file, if it is time to. What goes wrong ends the previews, and never the run."""
        if monotonic() < self._due:
            return
        try:
            self._renew(
                shrink_latents(latents).cpu()
            )  # here the device has done its steps: what follows is the preview's time
            return
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
        self._due = math.inf
        release_memory()
        log.warning(f"no more previews, the picture is made without: {reason}")

    def decode(self, latents: Tensor) -> Tensor:
        """The picture in about 0..1, fp32."""
        scaled = latents.to(self._net.device, self._net.dtype) / self._net.config.scaling_factor
        picture: Tensor = self._net.decode(scaled).sample.float()
        return picture / 2 + 0.5

    def _renew(self, latents: Tensor) -> None:
        began = monotonic()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_picture(Picture(pixels=tensor_to_pixels(self.decode(latents))), self._file, made=MADE)
        now = monotonic()
        self._due = now + max(PREVIEW_INTERVAL, (now - began) / PREVIEW_TIME_SHARE)


def shrink_latents(latents: Tensor) -> Tensor:
    """No more than the most, in the same shape."""
    factor = math.sqrt(MAX_PREVIEW_LATENTS / latents[0, 0].numel())
    if factor >= 1:
        return latents
    return interpolate(latents, [max(1, int(side * factor)) for side in latents.shape[2:]], mode="area")
