"""The resolved recipe: every default written out, readable back as a recipe."""

import yaml

from segadapt.config.recipe import Recipe


def as_yaml(recipe: Recipe) -> str:
    """YAML of the whole recipe, keys in the order of the models."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
