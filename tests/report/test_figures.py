"""Figures: well-formed, the same each time, with one place for each point."""

import base64
from xml.etree import ElementTree

from fewstep.report.entries import best, contested, digits, entries_of, grid_rows
from fewstep.report.figures import curves, grid_axis
from fewstep.report.style import styles

ROWS = [
    {"solver": solver, "grid": grid, "steps": n, "nfe": n, "fd": fd / n, "levels": [None, *levels, 0.0]}
    for solver, grid, fd, levels in (
        ("a", "karras", 8.0, (1.0,)),
        ("b", "karras", 6.0, (1.0,)),
        ("a", "optimized", 9.0, (2.0,)),
        ("b", "optimized", 5.0, (3.0,)),
        ("diffusers:c", "its own", 7.0, (4.0,)),
    )
    for n in (2, 4)
]


def svg(uri: str) -> ElementTree.Element:
    head, _, body = uri.partition(",")
    assert head == "data:image/svg+xml;base64"
    return ElementTree.fromstring(base64.b64decode(body))


def points(root: ElementTree.Element, colour: str) -> list[tuple[float, float]]:
    """Return the places of the markers of one colour."""
    return [
        (float(use.get("x")), float(use.get("y")))
        for use in root.iter("{http://www.w3.org/2000/svg}use")
        if colour in (use.get("style") or "")
    ]


def test_best_and_entries():
    assert best(ROWS, "fd") == {2: 2.5, 4: 1.25} and best(ROWS, "error") == {}
    entries = entries_of(ROWS)
    assert [entry.name for entry in entries] == [
        "a on karras",
        "b on karras",
        "a on optimized",
        "b on optimized",
        "diffusers:c",
    ]
    assert entries[3].values("fd") == {2: 2.5, 4: 1.25}


def test_where_solvers_meet():
    heun = {"solver": "heun", "grid": "karras", "steps": 2, "nfe": 3, "fd": 1.0, "levels": [1.0, 0.5, 0.0]}
    assert contested(entries_of([*ROWS, heun])) == [2, 4]
    assert contested(entries_of([heun])) == [3]


def test_numbers_have_their_digits():
    assert [digits(v) for v in (0.19, 12.5, 0.012345, 1234.5, 0.0)] == ["0.1900", "12.50", "0.01235", "1234", "0.000"]
    assert digits(0.19, 3) == "0.190" and digits(31415.9, 3) == "31416"


def test_a_grid_is_named_once_unless_solvers_change_it():
    assert grid_rows(entries_of(ROWS), 2) == {
        "karras": [None, 1.0, 0.0],
        "optimized, a": [None, 2.0, 0.0],
        "optimized, b": [None, 3.0, 0.0],
        "diffusers:c": [None, 4.0, 0.0],
    }


def test_a_curve_falls_where_its_values_fall_and_panels_have_the_same_axes():
    entries = entries_of(ROWS)
    looks = styles([entry.solver for entry in entries])
    both = [curves([entries[i]], "fd", "FD", entries, looks) for i in (0, 2)]
    assert both[0] == curves([entries[0]], "fd", "FD", entries, looks)  # nothing of the time of day
    (first, second) = (points(svg(uri), looks["a"].colour) for uri in both)
    assert len(first) == 2 and first[0][0] < first[1][0] and first[0][1] < first[1][1]  # y grows downwards
    assert second[0][0] == first[0][0] and second[0][1] < first[0][1]  # 9/2 is above 8/2


def test_ends_without_a_place_are_hollow():
    root = svg(grid_axis({"one": [None, 10.0, 1.0, 0.0], "two": [20.0, 1.0, 0.1]}))
    hollow, all_points = points(root, "fill: #ffffff"), points(root, "stroke: #0b6bcb")
    assert len(hollow) == 2 and len(all_points) == 7
    (pure_noise, _), (noise_free, _) = hollow
    assert all(pure_noise <= x <= noise_free for x, _ in all_points)
    assert all_points[2][1] != all_points[-1][1]


def test_a_grid_of_nothing_but_its_ends_is_drawn():
    root = svg(grid_axis({"one step": [None, 0.0]}))
    assert len(list(root.iter())) > 10


def test_styles_differ():
    looks = styles([f"s{i}" for i in range(30)] + ["diffusers:x"])
    assert len({(look.colour, look.marker) for look in looks.values()}) >= 30
    assert looks["diffusers:x"].dashed and not looks["s0"].dashed
