"""One command a figure: `python -m benchmarks NAME`. Each compares with a peer or a floor in the same run."""
