"""ρ by the number of network calls."""

from __future__ import annotations

import pytest

from fewstep import skip
from fewstep.errors import InputError


@pytest.mark.parametrize(
    ("calls", "rho"), [(1, 0.675), (9, 0.675), (10, 0.78), (19, 0.78), (29, 0.815), (39, 0.85), (100, 0.85)]
)
def test_the_papers_points_and_straight_lines_between_them(calls, rho):
    profile = skip.for_calls(calls)
    assert profile.bottom == pytest.approx(rho, abs=1e-12) and profile.top == 1.0
    assert profile.origin["source"] == f"the rule of arXiv 2402.15170 at {calls} calls"


def searched(calls, bottom, top=1.0, skips=12, fingerprint="a", **settings):
    origin = {"calls": calls, "model": {"fingerprint": fingerprint}}
    return skip.Profile(bottom, top, skips=skips, origin=origin, **settings)


def test_searches_take_the_place_of_the_papers(tmp_path):
    file = tmp_path / "five.json"
    searched(5, 0.5, 0.9).save(file)
    profiles = [searched(9, 0.7), file]
    assert skip.for_calls(6, profiles) == skip.Profile(0.55, 0.925, skips=12)
    assert skip.for_calls(3, profiles) == skip.Profile(0.5, 0.9, skips=12)
    assert skip.for_calls(30, profiles) == skip.Profile(0.7, 1.0, skips=12)
    assert skip.for_calls(6, profiles).origin["source"] == "searches at 5, 9 calls, at 6 calls"


def test_what_cannot_be_interpolated_is_refused():
    cases = [
        (0, [], "calls is 0"),
        (8, "five.json", "give a list"),
        (8, [skip.Profile(0.5)], "does not say at how many calls"),
        (8, [searched(5, 0.5), searched(5, 0.6)], "one for each number"),
        (8, [searched(5, 0.5), searched(8, 0.6, skips=9)], "of several models"),
        (8, [searched(5, 0.5), searched(8, 0.6, fingerprint="b")], "of several models"),
        (8, [searched(5, 0.5, sigma_window=(0.1, 1.0))], "more than bottom and top"),
    ]
    for calls, profiles, said in cases:
        with pytest.raises(InputError, match=said):
            skip.for_calls(calls, profiles)
    with pytest.raises(InputError, match="by the number of calls"):
        skip.named("auto")
    for spec in ("auto:3", "auto=0.7", "auto,0.7", "Auto", "auto:bottom=0.7"):
        with pytest.raises(InputError, match="write auto alone, without settings"):
            skip.named(spec)
