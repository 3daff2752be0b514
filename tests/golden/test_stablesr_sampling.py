"""StableSR's schedules, tiles, single steps and whole chains against the official numbers."""

import zlib

import torch
from tests.golden.cases import Case, each, off_by
from tests.golden.stablesr_official import (
    CanvasScript,
    decode,
    drowned,
    encode,
    fixed,
    reverse,
    scheduler,
    tiled,
    truncated,
)
from tests.golden.stablesr_tiny import led
from torch import Tensor

from srcli.sampling.ancestral import Ancestral, compute_sqrt_alpha_bar, make_scaled_linear_betas
from srcli.sampling.colorfix import blur_coarsest, fix_colors_by_adain, fix_colors_by_wavelet
from srcli.sampling.tiling import find_origins, gaussian_weight, lay_grid
from srcli.settings import Tiling

TABLE, FORWARD, END = 1e-4, 2e-5, 1e-4


def same_picture(got: Tensor, want: Tensor) -> bool:
    """At most one level off, on at most a thousandth of the values."""
    difference = (got.int() - want.int()).abs()
    return got.shape == want.shape and difference.max() <= 1 and (difference > 0).float().mean() <= 1e-3


@each("stablesr", "v06*")
def test_colour_fixes(case: Case) -> None:
    tensors = case.tensors
    for end in {key.removeprefix("content") for key in tensors if key.startswith("content")}:
        content, style = tensors[f"content{end}"], tensors[f"style{end}"]
        assert off_by(fix_colors_by_adain(content, style), tensors[f"adain{end}"]) < FORWARD
        assert off_by(fix_colors_by_wavelet(content, style), tensors[f"wavelet{end}"]) < FORWARD
    assert off_by(blur_coarsest(tensors["style"]), tensors["style_low"]) < FORWARD
    assert off_by(tensors["style"] - blur_coarsest(tensors["style"]), tensors["style_high"]) < FORWARD


@each("stablesr", "v07*")
def test_tile_weights(case: Case) -> None:
    for key, want in case.tensors.items():
        height, width = want.shape
        assert off_by(gaussian_weight(height, width), want) < 1e-6, key
    for key, want in case.notes.get("pixel_tile_starts_len_size_stride", {}).items():
        length, size, stride = (int(part) for part in key.split("/"))
        assert find_origins(length, size, size - stride) == want, key


@each("stablesr", "v08_tile_origins*")
def test_tile_origins(case: Case) -> None:
    for key, want in case.notes["cases"].items():
        sides, size, overlap = key.replace("tile", "").replace("ov", "").split()
        width, height = (int(side) for side in sides.split("x"))
        tiles = lay_grid(height, width, Tiling(size=int(size), overlap=int(overlap)))
        assert [[tile.left, tile.top] for tile in tiles] == want, key


@each("stablesr", "v08_canvas*")
def test_one_tiled_step(case: Case) -> None:
    notes, tensors, seen = case.notes, case.tensors, []
    denoiser = led(tensors["context"])

    def watched(x: Tensor, t: Tensor, hint: Tensor, where: object = None) -> Tensor:
        seen.append(denoiser(x, t, hint))
        return seen[-1]

    watched.stride = 1
    schedule, t = scheduler(notes["steps"]), notes["unet_timestep"]
    assert schedule.timesteps.tolist()[::-1][notes["index_i"]] == t
    canvas = tiled(watched, tensors["x"], notes["tile_size"], notes["tile_overlap"], notes["batch"])
    assert [[tile.left, tile.top] for tile in canvas.tiles] == notes["tile_origins_xy_in_order"]
    merged = canvas(tensors["x"], torch.tensor(t), tensors["cond_latent"])
    assert off_by(torch.cat(seen), tensors["tile_eps"]) < FORWARD
    assert off_by(merged, tensors["merged_eps_derived"]) < FORWARD
    done, posterior = schedule.step(merged, t, tensors["x"], tensors["noise"]), schedule.posterior(t)
    mean = posterior.mean_clean * done.pred_original_sample + posterior.mean_now * tensors["x"]
    assert off_by(done.pred_original_sample, tensors["pred_x0"]) < FORWARD
    assert off_by(mean, tensors["mean"]) < FORWARD
    assert off_by(torch.tensor([posterior.variance]).log(), tensors["log_variance"]) < TABLE
    assert off_by(done.prev_sample, tensors["x_prev"]) < FORWARD


@each("stablesr", "v09*")
def test_timesteps(case: Case) -> None:
    for count, want in case.notes["timesteps"].items():
        if int(count) == 1:
            continue  # only t = 0: nothing would be sampled, so the product refuses it
        found = scheduler(int(count)).timesteps.tolist()[::-1]
        if isinstance(want, list):
            assert found == want
        else:
            assert (len(found), found[:10], found[-10:]) == (want["len"], want["first10"], want["last10"])
            assert zlib.crc32(",".join(str(t) for t in found).encode()) == want["crc32"]


@each("stablesr", "v09*")
def test_schedule_tables(case: Case) -> None:
    kept = compute_sqrt_alpha_bar(make_scaled_linear_betas())[1:]
    full = {"sqrt_alphas_cumprod": kept, "sqrt_one_minus_alphas_cumprod": (1 - kept.square()).sqrt()}
    for key, want in case.tensors.items():
        part, what = key.split(".")
        table = full if part == "full" else tables(scheduler(int(part.removeprefix("n"))))
        assert off_by(table[what], want) < TABLE, key


def tables(schedule: Ancestral) -> dict[str, Tensor]:
    """The official buffers of a re-spaced schedule, from ours."""
    steps = schedule.timesteps.flip(0)
    kept = schedule.alphas_cumprod[steps]
    before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    posterior = [schedule.posterior(t) for t in steps.tolist()]
    variance = torch.tensor([p.variance for p in posterior], dtype=torch.float64)
    return {
        "betas": 1 - kept / before,
        "alphas_cumprod": kept,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": kept.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt(),
        "sqrt_recip_alphas_cumprod": kept.rsqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / kept - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.log(),
        "posterior_mean_coef1": torch.tensor([p.mean_clean for p in posterior]),
        "posterior_mean_coef2": torch.tensor([p.mean_now for p in posterior]),
    }


@each("stablesr", "v10*")
def test_whole_chain_and_decoding(case: Case) -> None:
    tensors, notes, seen = case.tensors, case.notes, []
    picture = tensors["image_u8"].float() / 255 * 2 - 1
    latent, features = encode(picture, tensors["z_noise"])
    assert off_by(latent, tensors["init_latent"]) < FORWARD
    schedule = scheduler(notes["steps"], notes["parameterization"])
    assert schedule.timesteps.tolist()[::-1] == notes["timesteps"]
    if "x_T_if_noised_lr" in tensors:
        assert off_by(drowned(latent, tensors["x_T"]), tensors["x_T_if_noised_lr"]) < FORWARD
    denoiser = led(tensors["context"])
    x = reverse(denoiser, schedule, tensors["x_T"], latent, tensors["step_noise"], seen=lambda *both: seen.append(both))
    assert off_by(torch.cat([one for one, _ in seen]), tensors["eps_per_step"]) < END
    assert off_by(torch.cat([one for _, one in seen]), tensors["latent_per_step"]) < END
    assert off_by(x, tensors["final_latent"]) < END
    for key in (key for key in tensors if key.startswith("decoded_w")):
        result, want = decode(x, features, float(key.split("_")[1].removeprefix("w"))), tensors[key]
        assert off_by(result[..., : want.shape[-2], : want.shape[-1]], want) < END
    for key in (key for key in tensors if key.startswith("u8_")):
        assert same_picture(truncated(fixed(key.removeprefix("u8_"), result, picture)), tensors[key]), key


@each("stablesr", "v11*")
def test_whole_tiled_chain(case: Case) -> None:
    tensors, notes, seen = case.tensors, case.notes, []
    latent = tensors["init_latent"]
    assert off_by(drowned(latent, tensors["noise"]), tensors["x_T"]) < FORWARD
    denoiser = tiled(led(tensors["context"]), latent, notes["tile_size"], notes["tile_overlap"])
    schedule = scheduler(notes["steps"])
    x = reverse(denoiser, schedule, tensors["x_T"], latent, tensors["step_noise"], seen=lambda *both: seen.append(both))
    assert off_by(torch.cat([one for _, one in seen]), tensors["latent_per_step"]) < END
    assert off_by(x, tensors["final_latent"]) < END


@each("stablesr", "v12*")
def test_official_script(case: Case) -> None:
    tensors, notes = case.tensors, case.notes
    script = CanvasScript(notes, tensors, led(tensors["context"]))
    result = script.run(tensors["lr_u8"])
    assert (list(script.kept), list(script.padded.shape[-2:])) == (notes["ori_hw"], notes["padded_hw"])
    rows = tensors["padded_first48rows"]
    assert off_by(script.padded[..., : rows.shape[-2], :], rows) < FORWARD
    corner = tensors["padded_last33x33"]
    assert off_by(script.padded[..., -corner.shape[-2] :, -corner.shape[-1] :], corner) < FORWARD
    latent, final = script.latents[0]
    for key, got in {"init_latent": latent, "x_T": script.start, "final_latent": final}.items():
        assert key not in tensors or off_by(got, tensors[key]) < END, key
    for index, (_, final) in enumerate(script.latents):
        want = tensors.get(f"patch{index}_final_latent")
        assert want is None or off_by(final, want) < END, index
    for key in ("merged_rows", "decoded_colorfixed_rows"):
        assert key not in tensors or nearest_rows(script.merged, tensors[key]) < END, key
    assert same_picture(result, tensors["output_u8"])


def nearest_rows(merged: Tensor, rows: Tensor) -> float:
    """The vectors do not say which rows they are."""
    count = rows.shape[-2]
    starts = range(merged.shape[-2] - count + 1)
    return min(off_by(merged[..., start : start + count, :], rows) for start in starts)


@each("stablesr", "v14*")
def test_mixed_ddim_grids(case: Case) -> None:
    """The official DDIM takes its coefficients from one grid of steps and calls the UNet at those of another."""
    tensors, notes = case.tensors, case.notes
    kept = compute_sqrt_alpha_bar(make_scaled_linear_betas()).square()[1:]
    grids = (notes["coefficient_timesteps"], notes["unet_timesteps"])
    alphas = kept[grids[0]]
    before = torch.cat([kept[:1], alphas[:-1]])  # the last step ends at the first level, not at 1
    sigmas = notes["eta"] * ((1 - before) / (1 - alphas) * (1 - alphas / before)).sqrt()
    for key, got in {"ddim_alphas": alphas, "ddim_alphas_prev": before, "ddim_sigmas": sigmas}.items():
        assert off_by(got, tensors[key]) < TABLE, key
    assert off_by((1 - alphas).sqrt(), tensors["ddim_sqrt_one_minus_alphas"]) < TABLE
    x, latent = tensors["x_T"], tensors["init_latent"]
    place = (notes["tile_size"], notes["tile_overlap"])
    told, untold = (tiled(led(tensors[key]), latent, *place) for key in ("context", "neg_context"))
    for index in reversed(range(notes["steps"])):
        a, b, sigma = (float(table[index]) for table in (alphas, before, sigmas))
        t = torch.tensor(grids[1][index])
        found = told(x, t, latent)
        if notes["guidance"] is not None:
            bare = untold(x, t, latent)
            found = bare + notes["guidance"] * (found - bare)
        if notes["parameterization"] == "v":
            found = a**0.5 * found + (1 - a) ** 0.5 * x
        clean = (x - (1 - a) ** 0.5 * found) / a**0.5
        noise = tensors["step_noise"][notes["steps"] - 1 - index]
        x = b**0.5 * clean + (1 - b - sigma**2) ** 0.5 * found + sigma * noise
    assert off_by(x, tensors["final_latent"]) < END


@each("stablesr", "v15*")
def test_face_reference(case: Case) -> None:
    tensors, notes = case.tensors, case.notes
    low, high = notes["reference_range"]

    def pull(index: int, clean: Tensor) -> Tensor:
        if not low <= index <= high:
            return clean
        for _ in range(notes["reference_step"]):
            clean = clean - notes["reference_lr"] * 2 * (clean - tensors["reference_latent"]) / len(clean)
        return clean

    schedule = scheduler(notes["steps"], notes.get("parameterization", "eps"))
    latent = tensors["init_latent"]
    x = reverse(led(tensors["context"]), schedule, tensors["x_T"], latent, tensors["step_noise"], pull)
    assert off_by(x, tensors["final_latent"]) < END
