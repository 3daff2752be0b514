"""`--preview`: a small picture of the expected result, decoded from the latents while the engine samples."""

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
PREVIEW_INTERVAL = 5.0  # least seconds between two previews
PREVIEW_TIME_SHARE = 0.05  # most that previews may take of a run's time
MAX_PREVIEW_LATENTS = 64 * 64  # so that decoding takes no more memory than a step
PREVIEW_PROVENANCE = {"tool": f"srcli {__version__}", "preview": True}


class Preview:
    """Writes previews to one file, with TAESD. It uses no random numbers and does not change the latents."""

    def __init__(self, file: Path, net: AutoencoderTiny) -> None:
        self._file, self._net, self._due = file, net, 0.0

    @classmethod
    def open(cls, file: Path, device: Device, store: Store) -> Preview:
        net = load_component(AutoencoderTiny, store.resolve(PREVIEW_DECODER, "preview").folder)
        place_step_networks([net], device, AMPLE)
        return cls(file, net)

    def show(self, latents: Tensor) -> None:
        """Write the file, if a preview is due. An error ends the previews but not the run."""
        if monotonic() < self._due:
            return
        try:
            self._write(shrink_latents(latents).cpu())  # cpu() waits for the device's steps, which must not be timed
            return
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
        self._due = math.inf
        release_memory()
        log.warning(f"previews stop, the run goes on: {reason}")

    def decode(self, latents: Tensor) -> Tensor:
        """The picture in about 0..1, fp32."""
        scaled = latents.to(self._net.device, self._net.dtype) / self._net.config.scaling_factor
        picture: Tensor = self._net.decode(scaled).sample.float()
        return picture / 2 + 0.5

    def _write(self, latents: Tensor) -> None:
        began = monotonic()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_picture(Picture(pixels=tensor_to_pixels(self.decode(latents))), self._file, provenance=PREVIEW_PROVENANCE)
        now = monotonic()
        self._due = now + max(PREVIEW_INTERVAL, (now - began) / PREVIEW_TIME_SHARE)


def shrink_latents(latents: Tensor) -> Tensor:
    """Latents reduced to at most MAX_PREVIEW_LATENTS, with the same aspect."""
    factor = math.sqrt(MAX_PREVIEW_LATENTS / latents[0, 0].numel())
    if factor >= 1:
        return latents
    return interpolate(latents, [max(1, int(side * factor)) for side in latents.shape[2:]], mode="area")
