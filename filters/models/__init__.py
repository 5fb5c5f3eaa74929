"""Models: fastText, SentencePiece, n-grams."""
