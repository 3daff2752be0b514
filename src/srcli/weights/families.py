"""Detect kind and family of a weight file from its header.

The width of the text embeddings in cross-attention identifies the base (768: SD 1.5, 1024: SD 2.1, 2048: SDXL); the
channels of the first convolution distinguish in-painting and depth models from plain ones.
"""

from dataclasses import dataclass
from pathlib import Path

from srcli.errors import WeightsError
from srcli.weights.header import Header, read_header

LDM_UNET = "model.diffusion_model."
LDM_VAE = "first_stage_model."
LDM_TEXT = "cond_stage_model."
FAMILIES = {768: "sd15", 1024: "sd21", 1280: "sdxl-refiner", 2048: "sdxl"}
CONV_IN = ("input_blocks.0.0.weight", "conv_in.weight")
TEXT_WIDTH = (
    "attn2.to_k.weight",
    "attn2_to_k.lora_down.weight",
    "attn2.to_k.lora_A.weight",
    "attn2.to_k.lora.down.weight",
    "attn2.processor.to_k_lora.down.weight",
)
ONE_STEP = ("osediff", "pisa-sr")
EPSILON, VELOCITY = "epsilon", "v_prediction"  # diffusers' prediction types
VELOCITY_NAMES = ("v", VELOCITY, "v-prediction", "velocity")
UNET_CHANNELS = 4  # of the first convolution, for latents without further maps


@dataclass(frozen=True)
class FoundFamily:
    """What a header shows; `family`: the base that it is or is for, or "any" if the file does not show it."""

    kind: str
    family: str
    layout: str
    channels: int = UNET_CHANNELS
    prediction: str | None = None

    def __str__(self) -> str:
        extra = {4: "", 5: ", depth", 8: ", instruction editing", 9: ", in-painting"}
        return f"{self.family} {self.kind}{extra.get(self.channels, f', {self.channels} channels')}"


def detect_family(path: Path) -> FoundFamily:
    """Detect the family of a safetensors file."""
    return detect_header(read_header(path))


def detect_header(header: Header) -> FoundFamily:
    """Detect kind, family, key layout, input channels and, if the file states it, the prediction type."""
    kind, layout = _kind(header)
    return FoundFamily(kind, _family(header, kind), layout, _channels(header), _prediction(header))


def require_family(found: FoundFamily, path: Path, *, kind: str, family: str) -> None:
    """WeightsError if a file is of another kind or family, or has other input channels."""
    fits = found.family in (family, "any") and found.channels == UNET_CHANNELS
    if found.kind != kind or not fits:
        raise wrong_weights(path, found, f"{family} {kind}")


def wrong_weights(path: Path, found: FoundFamily, needed: str) -> WeightsError:
    what = "no model that srcli knows" if found.kind == "unknown" else found
    return WeightsError(f"{path}: this is {what}, and {needed} is needed: choose another file")


def _kind(header: Header) -> tuple[str, str]:
    for test in (_one_step, _lora, _whole, _stablesr, _control, _unet, _small):
        if found := test(header):
            return found
    return "unknown", "unknown"


def _has(header: Header, *parts: str) -> bool:
    return any(part in name for name in header.shapes for part in parts)


def _starts(header: Header, *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in header.shapes)


def _one_step(header: Header) -> tuple[str, str] | None:
    kind = header.metadata.get("kind")
    return (kind, "diffusers") if kind in ONE_STEP else None


def _lora(header: Header) -> tuple[str, str] | None:
    if _has(header, ".lora_down.", ".lora_mid."):
        return "lora", "kohya"
    if _has(header, ".lora_A.", ".lora.down.", "_lora.down.", ".lora_linear_layer.down."):
        return "lora", "diffusers"
    return None


def _whole(header: Header) -> tuple[str, str] | None:
    if not _starts(header, LDM_UNET):
        return None
    if not _starts(header, "structcond_stage_model."):
        return "checkpoint", "ldm"
    # The small file holds the modulation too, under the UNet's names, but not the UNet.
    return ("stablesr" if LDM_UNET + CONV_IN[0] in header.shapes else "stablesr-adapter"), "ldm"


def _stablesr(header: Header) -> tuple[str, str] | None:
    if _starts(header, "structcond_stage_model."):
        return "stablesr-adapter", "ldm"
    if _has(header, "decoder.fusion_layer_"):
        return "cfw", "ldm"
    return None


def _control(header: Header) -> tuple[str, str] | None:
    if not _has(header, "controlnet_down_blocks.", "zero_convs."):
        return None
    pasd = _has(header, "controlnet_cond_embedding.to_rgbs.")
    return ("pasd-control" if pasd else "controlnet"), "diffusers" if _has(header, "controlnet_down_blocks.") else "ldm"


def _unet(header: Header) -> tuple[str, str] | None:
    if not _has(header, "up_blocks.0.resnets.0.time_emb_proj.weight"):
        return ("unet", "ldm") if "input_blocks.0.0.weight" in header.shapes else None
    if _has(header, ".pixel_attentions."):
        return "pasd-unet", "diffusers"
    if _has(header, ".attn2_plus."):
        return "pasd-light-unet", "diffusers"
    return "unet", "diffusers"


def _small(header: Header) -> tuple[str, str] | None:
    if _has(header, "token_embedding.weight"):
        return "text-encoder", "transformers"
    if _has(header, "decoder.mid_block.resnets.0.conv1.weight"):
        return "vae", "diffusers"
    if _has(header, "decoder.mid.block_1.conv1.weight"):
        return "vae", "ldm"
    if _has(header, "decoder.layers.0.weight", "encoder.layers.0.weight"):
        return "tiny-vae", "diffusers"
    return None


def _family(header: Header, kind: str) -> str:
    if kind in ("vae", "cfw", "tiny-vae", "unknown"):
        return "any"
    if kind == "stablesr-adapter":
        return "sd21"
    if kind == "text-encoder":
        return next((family_of_width(s[-1]) for s in header.ending("token_embedding.weight") if len(s) == 2), "any")
    if _starts(header, "conditioner.embedders."):
        return "sdxl"
    width = text_width(header)
    return "any" if width is None else family_of_width(width)


def family_of_width(width: int) -> str:
    """The family with text embeddings of this width."""
    # Unknown widths give a family of their own, so that small test models match each other.
    return FAMILIES.get(width, f"width{width}")


def text_width(header: Header) -> int | None:
    """The width of the text embeddings in the cross-attention of a UNet, ControlNet or LoRA; None if unknown."""
    for suffix in TEXT_WIDTH:
        for shape in header.ending(suffix):
            if len(shape) > 1:
                return shape[1]
    return None


def _channels(header: Header) -> int:
    for name in (*CONV_IN, *(LDM_UNET + name for name in CONV_IN)):
        if name in header.shapes and len(header.shapes[name]) == 4:
            return header.shapes[name][1]
    return UNET_CHANNELS


def _prediction(header: Header) -> str | None:
    said = header.metadata.get("modelspec.prediction_type", "").lower()
    if said in VELOCITY_NAMES or "v_pred" in header.shapes:
        return VELOCITY
    return EPSILON if said in (EPSILON, "eps") else None
