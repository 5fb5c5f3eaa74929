"""Rules of a recipe, one file each."""
