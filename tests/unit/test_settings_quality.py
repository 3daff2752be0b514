"""Presets: what --quality stands for."""

from __future__ import annotations

import pytest

from srcli.errors import InputError
from srcli.settings import ENGINES, ModelChoice, Sampling, preset


@pytest.mark.parametrize("engine", ENGINES)
def test_standard_is_the_default(engine):
    assert Sampling(quality="standard").over(engine) == Sampling().over(engine)
    assert preset(engine, "standard").loras == ()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_draft_takes_fewer_steps_and_the_best_no_fewer(engine):
    draft, standard, best = (Sampling(quality=name).over(engine).steps for name in ("draft", "standard", "best"))
    assert draft * 2 <= standard <= best


def test_what_is_given_goes_over_the_preset():
    made = Sampling(quality="draft", steps=9).over("pasd")
    assert (made.steps, made.scheduler, made.guidance) == (9, "lcm", 1.0)


def test_a_draft_of_pasd_needs_its_lora_first():
    choice = ModelChoice(engine="pasd", loras=()).at("draft")
    assert [lora.source for lora in choice.loras] == ["lcm-lora"]
    assert ModelChoice(engine="pasd").at(None).loras == ()


def test_an_unknown_quality_and_a_draft_of_what_is_one_already_are_refused():
    with pytest.raises(InputError, match="--quality 'nice' is unknown"):
        Sampling(quality="nice")
    with pytest.raises(InputError, match="means nothing to the stablesr-turbo engine"):
        Sampling(quality="draft").over("stablesr-turbo")
