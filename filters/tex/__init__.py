"""Extract the text of arXiv submissions in TeX."""
