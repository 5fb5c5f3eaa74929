"""Read books, and remove the text that publishers add."""
