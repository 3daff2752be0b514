"""Presets: what --quality stands for."""

from __future__ import annotations

import pytest

from srcli.engines.choose import choose_engine
from srcli.engines.registry import all_engines, find_engine
from srcli.errors import InputError
from srcli.settings import DeviceChoice, ModelChoice, Sampling
from srcli.tasks import UPSCALE

ENGINES = list(all_engines().values())
CPU = DeviceChoice(device="cpu")


@pytest.mark.parametrize("engine", ENGINES, ids=lambda spec: spec.name)
def test_standard_is_the_default(engine):
    assert engine.complete_sampling(Sampling(quality="standard"), None) == engine.complete_sampling(Sampling(), None)
    assert engine.preset_of(None, "standard").loras == ()


@pytest.mark.parametrize("engine", [e for e in ENGINES if e.profile.defaults.steps], ids=lambda spec: spec.name)
def test_a_draft_takes_fewer_steps_and_the_best_no_fewer(engine):
    names = ("draft", "standard", "best")
    draft, standard, best = (engine.complete_sampling(Sampling(quality=name), None).steps for name in names)
    assert draft * 2 <= standard <= best


def test_what_is_given_goes_over_the_preset():
    made = find_engine("pasd").complete_sampling(Sampling(quality="draft", steps=9), None)
    assert (made.steps, made.scheduler, made.guidance) == (9, "lcm", 1.0)


def test_a_draft_of_pasd_needs_its_lora_first():
    choice = choose_engine(UPSCALE, ModelChoice(engine="pasd"), CPU, Sampling(quality="draft"))
    assert [lora.source for lora in choice.loras] == ["lcm-lora"]
    assert choose_engine(UPSCALE, ModelChoice(engine="pasd"), CPU).loras == ()


def test_an_unknown_quality_and_a_draft_of_what_is_one_already_are_refused():
    with pytest.raises(InputError, match="`quality` 'nice' is unknown"):
        Sampling(quality="nice")
    with pytest.raises(InputError, match="means nothing to the stablesr-turbo engine"):
        find_engine("stablesr").complete_sampling(Sampling(quality="draft"), "turbo")
