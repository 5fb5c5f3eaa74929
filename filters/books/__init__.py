"""Books without the text that publishers add."""
