"""The program that builds a corpus with Apache Beam: sources, stages, their order, and the command line."""
