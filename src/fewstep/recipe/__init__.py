"""Recipes: plans that were fitted to a model, with their reports, and books of them."""

from fewstep.recipe.book import RecipeBook, load_recipe, load_recipes
from fewstep.recipe.interpolation import interpolated
from fewstep.recipe.recipe import Recipe
from fewstep.recipe.report import Report, RowFit

__all__ = ["Recipe", "RecipeBook", "Report", "RowFit", "interpolated", "load_recipe", "load_recipes"]
