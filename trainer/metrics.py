"""What a run says of itself: one CSV row a step, and a line in the terminal now and then."""

import csv
import sys
import time
from pathlib import Path

from manifests.files import write_atomic

FILE = "metrics.csv"
LINE_SECONDS = 5.0


class Metrics:
    """Writes the rows of one run; kept by the first rank. Rows behind the step resumed from are cut, so that no step
    stands twice."""

    def __init__(self, run: Path, sources: list[str], steps: int, resumed: int) -> None:
        self.path, self.steps = run / FILE, steps
        self.columns = ["step", "tokens", "loss", "learning_rate", "gradient_norm", "tokens_per_second", "batch"]
        self.columns += [f"loss_{source}" for source in sources]
        before = self.path.read_text(encoding="utf-8").splitlines()[1:] if self.path.exists() else []
        kept = [line for line in before if line.partition(",")[0].isdigit() and int(line.partition(",")[0]) <= resumed]
        write_atomic(self.path, ("\n".join([",".join(self.columns), *kept]) + "\n").encode())
        self.said = 0.0
        self.started, self.first = time.monotonic(), resumed

    def row(self, **values: object) -> None:
        """Write one step."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(values)
        step = int(str(values["step"]))
        if time.monotonic() - self.said < LINE_SECONDS and step != self.steps:
            return
        self.said = time.monotonic()
        left = (self.said - self.started) / (step - self.first) * (self.steps - step)
        rate = float(str(values["tokens_per_second"]))
        print(
            f"step {step}/{self.steps}  loss {float(str(values['loss'])):.4f}  "
            f"gradient {float(str(values['gradient_norm'])):.2f}  {rate:,.0f} tokens/s  {left:,.0f} s left",
            file=sys.stderr,
            flush=True,
        )
