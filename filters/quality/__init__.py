"""Filter rules that a recipe can name, and the functions that they use."""
