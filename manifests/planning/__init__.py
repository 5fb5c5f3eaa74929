"""What a recipe gives and costs."""
