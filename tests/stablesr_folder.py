"""A tiny StableSR on disk as users have it: a base in diffusers' layout, an adapter, fusion layers, checkpoints."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from tests.golden.cases import HERE
from tests.golden.stablesr_tiny import ENCODER, checkpoint, config, tiny, wrapping_checkpoint

TOKENIZER = HERE / "pasd" / "tiny" / "base" / "tokenizer"
SCHEDULE = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


def write_base(folder: Path, prediction: str = "epsilon", text_width: int | None = None) -> Path:
    """The stock parts of the tiny checkpoint, with a random text encoder of this width."""
    tiny().unet.save_pretrained(folder / "unet")
    tiny().vae.save_pretrained(folder / "vae")
    text_model(text_width or tiny().unet.config.cross_attention_dim).save_pretrained(folder / "text_encoder")
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    (folder / "scheduler").mkdir()
    schedule = SCHEDULE | {"prediction_type": prediction}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(schedule))
    return folder


def text_model(width: int) -> CLIPTextModel:
    torch.manual_seed(7)
    words = len(json.loads((TOKENIZER / "vocab.json").read_text()))
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 2, "num_hidden_layers": 2}
    return CLIPTextModel(
        CLIPTextConfig(vocab_size=words, max_position_embeddings=77, bos_token_id=0, eos_token_id=1, **sizes)
    ).eval()


def write_adapter(folder: Path, fusion: bool = True) -> Path:
    """The small set: modulation and encoder in one file, fusion layers in another."""
    folder.mkdir(parents=True)
    own = {key: v for key, v in checkpoint().items() if key.startswith(ENCODER) or ".spade." in key}
    save_file(own, folder / "adapter.safetensors")
    if fusion:
        save_file(wrapping_checkpoint(), folder / "cfw.safetensors")
    return folder


def whole() -> dict[str, Tensor]:
    """A whole checkpoint: what the golden one has, the text tower under OpenCLIP's names, the schedule."""
    width = config()["model"]["params"]["unet_config"]["params"]["context_dim"]
    ours = {key.removeprefix("text_model."): v for key, v in text_model(width).state_dict().items()}
    tower = {
        "token_embedding.weight": ours["embeddings.token_embedding.weight"],
        "positional_embedding": ours["embeddings.position_embedding.weight"],
        "ln_final.weight": ours["final_layer_norm.weight"],
        "ln_final.bias": ours["final_layer_norm.bias"],
    }
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    parts |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for layer in range(2):
        old, new = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for end in ("weight", "bias"):
            tower |= {f"{old}{theirs}.{end}": ours[f"{new}{own}.{end}"] for theirs, own in parts.items()}
            joined = [ours[f"{new}self_attn.{name}_proj.{end}"] for name in "qkv"]
            tower[f"{old}attn.in_proj_{end}"] = torch.cat(joined)
    named = {f"cond_stage_model.model.{key}": v.clone() for key, v in tower.items()}
    return {**checkpoint(), **named, "betas": torch.ones(1000)}


def write_pickle(path: Path) -> Path:
    """As published: a Lightning file with more than weights in it."""
    torch.save({"epoch": 3, "state_dict": whole(), "optimizer_states": [{"exp_avg": torch.zeros(4)}]}, path)
    return path
