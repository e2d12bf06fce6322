"""What every solver keeps, and what the base class answers to one that does not."""

import copy
import pickle

import pytest
import torch
from support.exact import observed_order
from support.solvers import SOLVERS

import fewstep as fs
from fewstep.errors import InputError
from fewstep.solvers import MultistepSolver, Schedule, Solver
from fewstep.solvers.adams import Coefficients

VP = fs.processes.VPLinear()
DETERMINISTIC = [solver for solver in SOLVERS if not solver.plan(fs.grids.uniform_time(VP, 9)).stochastic]


@pytest.fixture
def registry(monkeypatch):
    """The solvers by name, given back as they were."""
    names = dict(fs.solvers.NAMES)
    yield fs.solvers.NAMES
    fs.solvers.NAMES.clear()
    fs.solvers.NAMES.update(names)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_solver_is_its_settings(solver):
    for same in (copy.deepcopy(solver), pickle.loads(pickle.dumps(solver))):
        assert same == solver and hash(same) == hash(solver) and repr(same) == repr(solver)
    assert solver.plan(fs.grids.uniform_time(VP, 3)).solver == repr(solver)


@pytest.mark.parametrize("solver", DETERMINISTIC, ids=repr)
def test_every_solver_of_the_ode_converges(solver):
    order, error = observed_order(solver, VP, fs.grids.uniform_logsnr)
    assert order > 0.9 and error < 1e-2


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_only_a_grid_is_planned(solver):
    with pytest.raises(InputError, match=r"give a TimeGrid, such as fs\.grids\.karras"):
        solver.plan([1.0, 0.5])


@pytest.mark.parametrize("name", fs.solvers.NAMES)
def test_an_unknown_setting_is_answered_with_those_that_there_are(name):
    made = fs.solvers.NAMES[name]
    with pytest.raises(InputError, match=f"unknown setting of {made.__name__} 'ordr'"):
        made(ordr=3)


def test_the_nearest_settings_come_first():
    with pytest.raises(InputError, match=r"'order': did you mean 'corrector_order' or 'predictor_order'\? Known are"):
        fs.SASolver(order=3)


def by_hand(grid: fs.TimeGrid) -> fs.Plan:
    """Euler's method."""
    ratio = grid.sigma[..., 1:] / grid.sigma[..., :-1]
    return fs.Plan(
        grid=grid,
        interval=torch.arange(grid.steps),
        state_weight=ratio,
        history_weights=(grid.alpha[..., 1:] - ratio * grid.alpha[..., :-1])[..., None],
        noise_scale=torch.zeros_like(ratio),
        evaluate=torch.ones(grid.steps, dtype=torch.bool),
    )


def test_a_class_registers_itself_by_its_name_alone(registry):
    class Named(Solver):
        name = "by-hand"

        def table(self, grid):
            return by_hand(grid)

    class Inherits(Named):
        pass

    class Anonymous(Solver):
        table = Named.table

    assert registry["by-hand"] is Named and not {Inherits, Anonymous} & set(registry.values())
    assert type(fs.solvers.named("by-hand")) is Named
    grid = fs.grids.karras(VP, 5)
    for solver in (Named(), Inherits(), Anonymous()):
        plan = solver.plan(grid)
        assert torch.allclose(plan.state_weight, fs.Euler().plan(grid).state_weight, rtol=1e-15)
        assert plan.solver == repr(solver) == f"{type(solver).__name__}()"


def test_a_solver_of_ones_own_is_planned_on_the_host():
    class Own(Solver):
        def table(self, grid):
            return by_hand(grid)

    with torch.device("meta"):
        plan = Own().plan(fs.grids.karras(VP, 5))
    assert {plan.history_weights.device.type, plan.interval.device.type} == {"cpu"}


def test_a_name_belongs_to_one_class_which_may_be_defined_anew(registry):
    def define(name):
        class Again(fs.Euler):
            pass

        return type(fs.Euler)("Again", (fs.Euler,), {"name": name, "__qualname__": Again.__qualname__})

    first, second = define("again"), define("again")
    assert first is not second and registry["again"] is second
    with pytest.raises(InputError, match=r"'unipc' is fewstep\.solvers\.unipc\.UniPC already: choose another name"):
        define("unipc")
    for name in ("My Euler", "Euler", "sa:2", "a,b", "-"):
        with pytest.raises(InputError, match="lower-case"):
            define(name)
    assert registry["unipc"] is fs.UniPC


def test_plan_is_final_and_table_returns_a_plan():
    with pytest.raises(InputError, match=r"call the method table\(grid\)"):

        class Old(Solver):
            def plan(self, grid):
                return by_hand(grid)

    class Forgetful(Solver):
        def table(self, grid):
            by_hand(grid)

    with pytest.raises(InputError, match=r"Forgetful\.table returned NoneType: return an fs\.Plan"):
        Forgetful().plan(fs.grids.karras(VP, 5))
    with pytest.raises(InputError, match="unknown setting of Forgetful 'order': choose one of analytic_first"):
        Forgetful(order=2)


class Watched(MultistepSolver):
    """A multistep method of order 3 that notes what its rules are asked."""

    def __init__(self, **settings):
        self.schedule_of, self.seen = settings, []

    def schedule(self, grid):
        return Schedule(order=3, **self.schedule_of)

    def predict(self, intervals, order):
        return self.noted(intervals, range(0, -order, -1))

    def correct(self, intervals, nodes):
        return self.noted(intervals, range(1, 1 - nodes, -1))

    def noted(self, intervals, offsets):
        self.seen.append((intervals, offsets))
        return fs.solvers.adams.adams(intervals, offsets) if len(offsets) else Coefficients


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("times", [[1.0, 0.8, 0.6, 0.4, 0.2, 0.0], [0.9, 0.8, 0.6, 0.4, 0.2, 0.1]])
def test_what_a_rule_may_rely_on(times, lower, last):
    grid = fs.TimeGrid(fs.processes.RectifiedFlow(), times)
    solver = Watched(corrector_nodes=lambda order: order + 1, lower_order_final=lower, corrects_last=last)
    solver.plan(grid)
    for intervals, offsets in solver.seen:
        positions = intervals.positions(offsets)
        assert positions.shape == (*intervals.h.shape, len(offsets))
        if len(offsets) > 1:
            assert bool(torch.isfinite(intervals.h).all() and torch.isfinite(positions).all())
            newest = 0.0 if offsets[0] == 1 else -1.0
            torch.testing.assert_close(positions[..., 0], torch.full_like(intervals.h, newest), rtol=0, atol=1e-15)
            assert bool((positions.diff(dim=-1) < 0).all())
        to_zero = intervals.sigma_end == 0
        assert bool((intervals.tau[to_zero] == 0).all() and (intervals.alpha_end[to_zero] == 1).all())


def test_a_corrector_that_is_asked_for_must_be_there():
    class Half(MultistepSolver):
        def schedule(self, grid):
            return Schedule(order=1, corrector_nodes=lambda order: 2)

        def predict(self, intervals, order):
            return fs.solvers.adams.adams(intervals, [0])

    with pytest.raises(NotImplementedError, match=r"Half has a schedule with a corrector: it needs correct\(\)"):
        Half().plan(fs.grids.karras(VP, 5))
