"""The preset is the environment's, and a wrong one is refused with the remedy."""

import pytest

from litrev import presets


def test_laptop_is_the_default(monkeypatch):
    monkeypatch.delenv("LITREV_PRESET", raising=False)
    assert presets.name() == "laptop"
    assert presets.preset(laptop=6000, smoke=8) == 6000


def test_smoke_is_chosen_by_the_environment(monkeypatch):
    monkeypatch.setenv("LITREV_PRESET", "smoke")
    assert presets.preset(laptop=6000, smoke=8) == 8


def test_unknown_preset_is_refused(monkeypatch):
    monkeypatch.setenv("LITREV_PRESET", "turbo")
    with pytest.raises(ValueError, match="'turbo'.*'laptop' or 'smoke'"):
        presets.preset(laptop=1, smoke=2)
