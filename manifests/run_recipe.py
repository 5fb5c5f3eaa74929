"""The recipe that a corpus keeps, and the user's own classes that it names."""

import sys
from pathlib import Path

import yaml

from filters.errors import UserError
from manifests.mirror import fetch, fetch_folder
from manifests.recipe import Recipe, parse_recipe, read_yaml

RECIPE_FILE = "recipe.yaml"  # the recipe as the run was given it, with absolute paths
CODE = "code"  # copies of the modules that hold a user's own rules and readers


def load_run_recipe(folder: Path) -> Recipe:
    """Return the recipe as a run wrote it. Raises UserError."""
    path = fetch(folder, RECIPE_FILE)
    find_user_code(folder)
    try:
        return parse_recipe(read_yaml(path.read_bytes()), str(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: the corpus must keep the recipe that the run wrote") from error


def find_user_code(corpus: Path) -> None:
    """Let imports find the modules of a user's own rules and readers that a corpus keeps, after all others."""
    folder = str(corpus / CODE)
    if folder not in sys.path and fetch_folder(corpus, CODE).is_dir():
        sys.path.append(folder)
