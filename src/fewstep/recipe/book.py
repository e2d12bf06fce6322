"""The recipe book: recipes of one model for several numbers of calls, and the reading of files of either kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.checks import shown
from fewstep.errors import InputError
from fewstep.recipe.recipe import FORMATS, Recipe, StoredRecipe
from fewstep.storage import Schema, Stored, json_text, parsed, read_json

__all__ = ["RecipeBook", "load_recipe", "load_recipes"]

BOOK_FORMAT = "fewstep-recipe-book/1"


class _StoredBook(Schema):
    recipes: list[StoredRecipe]


@dataclass(frozen=True, eq=False)
class RecipeBook(Stored):
    """Recipes of one model for several numbers of network calls.

    Args:
        recipes: in any order.

    Raises:
        InputError: if there are none, or two of them have the same number of calls.
    """

    recipes: tuple[Recipe, ...]

    def __post_init__(self) -> None:
        """Put the recipes in order of their calls."""
        if not isinstance(self.recipes, (tuple, list)) or not all(isinstance(one, Recipe) for one in self.recipes):
            raise InputError(f"recipes is {shown(self.recipes)}: give a tuple of fs.Recipe.")
        recipes = tuple(sorted(self.recipes, key=lambda recipe: recipe.plan.nfe))
        calls = [recipe.plan.nfe for recipe in recipes]
        if not calls or len(set(calls)) < len(calls):
            raise InputError(
                f"the book has recipes of {calls} calls: give at least one, with different numbers of calls."
            )
        object.__setattr__(self, "recipes", recipes)

    @property
    def calls(self) -> tuple[int, ...]:
        """The numbers of network calls that there are recipes of, rising."""
        return tuple(recipe.plan.nfe for recipe in self.recipes)

    def __getitem__(self, calls: int) -> Recipe:
        """Return the recipe of ``calls`` network calls.

        Raises:
            InputError: if there is none; it names those there are.
        """
        for recipe in self.recipes:
            if recipe.plan.nfe == calls:
                return recipe
        known = ", ".join(map(str, self.calls))
        raise InputError(f"the book has no recipe of {calls!r} calls: take one of {known}.")

    def chosen(self, steps: int | None) -> Recipe:
        """Return the recipe of ``steps`` calls.

        Raises:
            InputError: if there is none, or ``steps`` is None; it names those there are.
        """
        if steps is None:
            known = ", ".join(map(str, self.calls))
            raise InputError(
                f"this is a book of recipes: give the number of network calls as its steps, one of {known}."
            )
        return self[steps]

    def to_json(self) -> str:
        """Return the book as JSON; ``from_json`` gives the same recipes back, bit for bit."""
        return json_text({"format": BOOK_FORMAT, "recipes": [recipe.to_dict() for recipe in self.recipes]})

    @classmethod
    def from_json(cls, text: str) -> RecipeBook:
        """Return the book that ``to_json`` wrote.

        Raises:
            InputError: if the text is no book, or one of its recipes is wrong.
        """
        return cls._of(parsed(text, {BOOK_FORMAT: _StoredBook}, "the recipe book"))

    @classmethod
    def _of(cls, stored: _StoredBook) -> RecipeBook:
        return cls(tuple(Recipe.of(recipe) for recipe in stored.recipes))

    def __str__(self) -> str:
        return "\n".join([f"book of {len(self.recipes)} recipes", *(f"  {recipe}" for recipe in self.recipes)])


def load_recipe(path: Path | str, steps: int | None = None) -> Recipe:
    """Return the recipe in a file, of a book the one of ``steps`` network calls.

    Raises:
        InputError: if the file cannot be read or is no recipe, or has none of ``steps`` calls; or it is a book and
            ``steps`` is not given.
    """
    found = _stored(path)
    if isinstance(found, RecipeBook):
        return found.chosen(steps)
    if steps not in (None, found.plan.nfe):
        raise InputError(
            f"the recipe is of {found.plan.nfe} steps, {str(path)!r}: leave steps out, or give {found.plan.nfe}."
        )
    return found


def load_recipes(path: Path | str) -> tuple[Recipe, ...]:
    """Return all recipes in a file: the one, or those of a book in order of their calls.

    Raises:
        InputError: if the file cannot be read or is no recipe.
    """
    found = _stored(path)
    return found.recipes if isinstance(found, RecipeBook) else (found,)


def _stored(path: Path | str) -> Recipe | RecipeBook:
    formats: Mapping[str, Any] = {**FORMATS, BOOK_FORMAT: _StoredBook}
    stored = read_json(path, formats, "the recipe")
    return RecipeBook._of(stored) if isinstance(stored, _StoredBook) else Recipe.of(stored)
