"""The search: its result is what an independent measurement says, the same from run to run, and nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.compared import smooth

import fewstep as fs
from fewstep.errors import InputError
from fewstep.guidance import Wrapped
from fewstep.models.model import Model
from fewstep.tuning.conditions import ConditionRows
from fewstep.tuning.subject import FRESH
from fewstep.tuning.tune import _budget

BUDGET = 400


class Counted(Wrapped):
    """A denoiser that counts its calls, one a sample."""

    def __init__(self, inner, limit=None):
        super().__init__(inner)
        self.calls, self.limit = 0, limit

    def __call__(self, x_t, t, cond=None):
        self.calls += len(x_t)
        if self.limit is not None and self.calls > self.limit:
            raise KeyboardInterrupt
        return self.inner(x_t, t, cond)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tune") / "search"


@pytest.fixture(scope="module")
def tuned(folder):
    model = Counted(smooth())
    return fs.tune(model, 4, budget=BUDGET, folder=folder), model.calls


def test_the_winner_is_as_good_as_the_verdict_says(tuned):
    found, _ = tuned
    verdict, model = found.verdict, smooth()
    plan = found.recipe.plan
    assert verdict.better and plan.nfe == 4
    seeds = range(FRESH, FRESH + verdict.noises)
    cond = torch.arange(verdict.noises) % 2
    fine = fs.UniPC(3, variant="exact").plan(fs.grids.uniform_logsnr(model.process, found.reference_steps, end="zero"))

    def drawn(plan):
        return fs.execute(plan, model, fs.initial_state(plan.grid, model.shape, seeds), cond=cond)

    error = (drawn(plan) - drawn(fine)).square().mean().sqrt()
    assert float(error) == pytest.approx(verdict.winner.value, rel=1e-4)
    assert verdict.winner.low <= verdict.winner.value <= verdict.winner.high
    assert verdict.gain.value == pytest.approx(verdict.before.value / verdict.winner.value)


def test_the_budget_is_kept(tuned):
    found, calls = tuned
    assert calls <= BUDGET and found.calls <= BUDGET


def test_the_same_search_makes_no_call_again(tuned, folder):
    model = Counted(smooth())
    again = fs.tune(model, 4, budget=BUDGET, folder=folder)
    assert model.calls == 0
    assert again.recipe.to_json() == tuned[0].recipe.to_json()
    assert again.verdict == tuned[0].verdict


def test_a_stopped_search_ends_like_the_whole_one(tuned, tmp_path):
    found, calls = tuned
    for limit in (calls // 4, calls // 2):
        with pytest.raises(KeyboardInterrupt):
            fs.tune(Counted(smooth(), limit), 4, budget=BUDGET, folder=tmp_path / "search")
    model = Counted(smooth())
    again = fs.tune(model, 4, budget=BUDGET, folder=tmp_path / "search")
    assert model.calls < calls
    assert again.recipe.to_json() == found.recipe.to_json() and again.verdict == found.verdict


def test_the_recipe_is_kept_whole(tuned, tmp_path):
    recipe = tuned[0].recipe
    recipe.save(tmp_path / "recipe.json")
    again = fs.load_recipe(tmp_path / "recipe.json")
    assert again.to_json() == recipe.to_json()
    assert again.tuning["verdict"]["better"] and again.guidance is None and again.skip is None


def test_progress_is_told():
    told = []
    fs.tune(smooth(), 4, budget=200, progress=lambda *words: told.append(words))
    stages = [stage.partition(" ")[0] for stage, *_ in told]
    assert list(dict.fromkeys(stages))[:2] == ["solutions", "round"] and "verdict" in stages
    assert all(0 <= done <= total for _, done, total, _ in told)


def test_a_score_chooses_settings(tmp_path):
    """The score is the brightness: what a stochastic solver and guidance make of two classes, −0.5 and 0.5."""
    seen = []

    def brightness(samples, conditions):
        seen.append((len(samples), conditions))
        return samples.mean((1, 2, 3))

    objective = fs.tuning.Score(brightness, "brightness")
    found = fs.tune(smooth(), 4, objective=objective, budget=600, cond=torch.tensor([0, 1]))
    assert all(count == len(conditions) for count, conditions in seen)
    assert found.verdict.metric == "score"
    assert any(":eta" in one.settings.solver or "tau" in one.settings.solver for one in found.tried)
    best = found.tried[0]
    assert best.value == max(one.value for one in found.tried if one.noises == best.noises)


def test_the_error_may_be_that_of_features():
    model = fs.zoo.load("fashion-mnist")
    objective = fs.tuning.ErrorToSolution(fs.metrics.features("fashion-mnist"))
    found = fs.tune(model, 2, objective=objective, budget=60, batch_size=4)
    assert found.verdict.metric == "feature-error" and "error of features" in str(found.verdict)
    samples = found.samples(found.verdict.noises)
    drawn, solved = (fs.metrics.features("fashion-mnist")(samples[name][1]) for name in ("best found", "solution"))
    expected = float((drawn.double() - solved.double()).square().mean().sqrt())
    assert found.verdict.winner.value == pytest.approx(expected, rel=1e-3)


def test_nothing_better_gives_the_default():
    """All samples score alike."""
    found = fs.tune(smooth(), 4, objective=fs.tuning.Score(lambda samples: np.ones(len(samples)), "one"), budget=200)
    assert not found.verdict.better and found.recipe.plan.to_json() == found.default.plan.to_json()
    assert str(found.verdict).startswith("nothing was better beyond doubt than the default, what fewstep recommends")


def test_a_sampler_that_is_no_plan_is_told_of_once():
    def default(steps):
        raise InputError("LCMScheduler has no counterpart among fewstep's solvers.")

    with pytest.warns(UserWarning, match="not compared with: LCMScheduler .* takes its place") as told:
        found = fs.tune(Model(smooth(), default=default), 4, budget=200)
    assert found.verdict.default == "what fewstep recommends"
    assert sum("not compared with" in str(one.message) for one in told) == 1


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        (lambda samples: [float("nan")] * len(samples), "wrong returned nan for a sample"),
        (lambda samples: 1.0, "wrong returned 1 scores for"),
        (lambda samples: "good", "wrong returned str: it must return a number for each sample"),
        (lambda samples: 1 / 0, "wrong raised ZeroDivisionError: division by zero; what was measured before is kept"),
    ],
)
def test_a_score_that_fails(scorer, words):
    with pytest.raises(InputError, match=words):
        fs.tune(smooth(), 4, objective=fs.tuning.Score(scorer, "wrong"), budget=400)


def test_bad_settings(tmp_path):
    with pytest.raises(InputError, match="budget is 20 network calls, which is too small"):
        fs.tune(smooth(), 8, budget=20)
    with pytest.raises(InputError, match="budget is 'soon': give network calls, as 2000, or a time, as 10min"):
        fs.tune(smooth(), 8, budget="soon")
    with pytest.raises(InputError, match="model is str"):
        fs.tune("fashion-mnist", 8)
    with pytest.raises(InputError, match="the folder above it does not exist"):
        fs.tune(smooth(), 8, folder=tmp_path / "no" / "such")
    with pytest.raises(InputError, match="storage 'mongodb://x' cannot be used"):
        fs.tune(smooth(), 8, storage="mongodb://x")


def test_budgets():
    assert _budget(2000) == 2000 and _budget("2000") == 2000
    assert _budget("10min") == 600.0 and _budget("1.5 h") == 5400.0 and _budget("90s") == 90.0


def test_a_budget_of_time_is_counted_once(tmp_path):
    """Calls in a second differ from run to run; those of the first run stay."""
    first = fs.tune(smooth(), 4, budget="1s", folder=tmp_path / "search")
    again = fs.tune(smooth(), 4, budget="1s", folder=tmp_path / "search")
    assert first.budget == again.budget and first.recipe.to_json() == again.recipe.to_json()


def test_one_in_four_prompts_is_kept_for_the_verdict():
    rows = ConditionRows.of(smooth(), {"text": torch.arange(9.0)[:, None]})
    assert rows.numbers(range(9), fresh=False) == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert rows.numbers(range(3), fresh=True) == [7, 8, 7]
    assert rows.of_noises([0, 1], fresh=True)["text"].tolist() == [[7.0], [8.0]]
    few = ConditionRows.of(smooth(), {"text": torch.zeros(3, 2)})
    assert few.numbers(range(2), fresh=True) == few.numbers(range(2), fresh=False) == [0, 1]
