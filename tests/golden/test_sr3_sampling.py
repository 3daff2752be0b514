"""SR3's schedules, single steps and whole reverse chains against the official numbers."""

import re

import torch
from tests.golden.cases import Case, each, each_group, off_by
from tests.golden.sr3_tiny import WRITTEN, condition, joined, model_of, network, schedule
from torch import Tensor

from srcli.sampling.ancestral import Ancestral, compute_sqrt_alpha_bar, make_betas

TABLE, FORWARD, END = 1e-4, 2e-5, 1e-4


def table_names(case: Case) -> list[str]:
    return case.groups("betas")


def described(case: Case, part: str) -> Tensor | None:
    """The betas of one group: written out in the notes, or the group's name is its kind and its length."""
    name, steps = part.strip("."), case.tensors[f"{part}betas"].numel()
    text = case.notes["configs"].get(name, "")
    if WRITTEN.search(text):
        return schedule(text)
    kind = name.removesuffix(str(steps))
    if kind == "jsd":  # ends in beta = 1: offered by nobody
        return None
    small = dict(re.findall(r"linear_(start|end) ([\d.e-]+)", case.notes["small"]))
    return make_betas(kind, steps, float(small["start"]), float(small["end"]))


@each_group("sr3", "s04*", table_names)
def test_schedules(case: Case, part: str) -> None:
    table = described(case, part)
    if table is None:
        assert not torch.isfinite(torch.cat([v.flatten() for v in case.under(part).values()])).all()
        return
    for key, want in case.under(part).items():
        assert off_by(tables(table)[key], want) < TABLE, key


def tables(table: Tensor) -> dict[str, Tensor]:
    """The official buffers, from ours."""
    scheduler = Ancestral(table)
    kept, root = scheduler.alphas_cumprod, compute_sqrt_alpha_bar(table)
    posterior = [scheduler.posterior(t) for t in range(len(table))]
    variance = torch.tensor([p.variance for p in posterior], dtype=torch.float64)
    return {
        "betas": scheduler.betas,
        "alphas_cumprod": kept,
        "alphas_cumprod_prev": root[:-1].square(),
        "sqrt_alphas_cumprod": root[1:],
        "sqrt_alphas_cumprod_prev": root,
        "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - kept).log(),
        "sqrt_recip_alphas_cumprod": kept.rsqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / kept - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.log(),
        "posterior_mean_coef1": torch.tensor([p.mean_clean for p in posterior]),
        "posterior_mean_coef2": torch.tensor([p.mean_now for p in posterior]),
    }


@each("sr3", "s05*")
def test_noising(case: Case) -> None:
    root = compute_sqrt_alpha_bar(schedule(str(case.notes))).float()
    keeps = {"sr3": case.tensors["gamma_sqrt"], "ddpm": root[case.tensors["ddpm_t"] + 1]}
    for variant, keep in keeps.items():
        keep = keep.view(-1, 1, 1, 1)
        got = keep * case.tensors["x0"] + (1 - keep.square()).sqrt() * case.tensors["noise"]
        assert off_by(got, case.tensors[f"{variant}_q_sample"]) < FORWARD, variant


def predict(name: str, table: Tensor, cond: Tensor | None, x: Tensor, t: int) -> Tensor:
    """The network's noise, told the level or the step as its variant wants."""
    unet = network(name)
    level = compute_sqrt_alpha_bar(table)[t + 1].float().expand(len(x), 1)
    return unet(joined(cond, x), level if unet.shape.variant == "sr3" else torch.tensor([t] * len(x)))


@each("sr3", "s06*")
def test_one_step(case: Case) -> None:
    table, cond, x = schedule(case.notes["schedule"]), condition(case), case.tensors["x"]
    for key, want in case.tensors.items():
        found = re.fullmatch(r"i(\d+)\.(clip\d\.mean|p_sample_clip)", key)
        if not found:
            continue
        t, what = int(found[1]), found[2]
        scheduler = Ancestral(table, clip=what != "clip0.mean")
        noise = case.tensors["noise"] if what == "p_sample_clip" else torch.zeros_like(x)
        got = scheduler.step(predict(model_of(case), table, cond, x, t), t, x, variance_noise=noise).prev_sample
        assert off_by(got, want) < FORWARD, key


@each("sr3", "s07*")
def test_whole_chain(case: Case) -> None:
    table, cond = schedule(case.notes["schedule"]), condition(case)
    scheduler, x = Ancestral(table, clip=True), case.tensors["x_T"]
    scheduler.set_timesteps(case.notes["T"])
    noises, chain = [*case.tensors["step_noise"], None], []
    for index, t in enumerate(scheduler.timesteps.tolist()):
        x = scheduler.step(predict(model_of(case), table, cond, x, t), t, x, noises[index]).prev_sample
        chain.append(x)
    assert off_by(chain[0], case.tensors["after_first_step"]) < END
    assert off_by(chain[len(chain) // 2], case.tensors["after_half"]) < END  # the step that begins the second half
    assert off_by(x, case.tensors["final"]) < END
    start = cond if cond is not None else case.tensors["x_T"]
    kept = [x for x, t in zip(chain, scheduler.timesteps, strict=True) if t % case.notes["sample_inter"] == 0]
    check_returned(case, x, torch.cat([start, *kept]))


def check_returned(case: Case, x: Tensor, stack: Tensor) -> None:
    """What the official loop hands back; where it loses all but the last picture, ours keeps the batch."""
    returned = case.tensors.get("returned_noncontinous")
    if returned is not None:
        assert off_by(x if returned.ndim == 4 else x[-1], returned) < END
    if "stack_means" in case.tensors:
        assert list(stack.shape) == case.notes["stack_shape"]
        assert off_by(stack.mean(dim=(1, 2, 3)), case.tensors["stack_means"]) < END
