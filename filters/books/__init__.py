"""Books without what publishers put around them."""
