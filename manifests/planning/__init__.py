"""Plan what a recipe yields and costs."""
