"""The report: one static HTML file on the content of a corpus and the records it lost, from the corpus alone."""
