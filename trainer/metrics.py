"""What a run says of itself: one CSV row a step, and a line in the terminal now and then.

The columns of `CLOCK` depend on the machine; all others are the same in every run of the same plan.
"""

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from filters.errors import UserError
from manifests.files import write_atomic
from trainer.presets import Preset

FILE = "metrics.csv"
LINE_SECONDS = 5.0
CLOCK = ("tokens_per_second", "mfu_6n", "mfu_attention", "memory_gb", "seconds_left")

PEAKS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
}
"""dense bf16 FLOP/s by a part of the device's name, the first that fits: NVIDIA's data sheets, without sparsity"""

Logger = Callable[[int, dict[str, float]], object]


class Metrics:
    """Writes the rows of one run; kept by the first rank. Rows behind the step resumed from are cut, so that no step
    stands twice. `loggers`: each is given (step, {column: number}) too."""

    def __init__(self, run: Path, sources: list[str], last: int, resumed: int, loggers: list[Logger]) -> None:
        self.path, self.last, self.loggers = run / FILE, last, loggers
        self.columns = ["step", "tokens", "loss", "bits_per_byte", "learning_rate", "gradient_norm", "skipped", "batch"]
        self.columns += [f"{kind}_{source}" for kind in ("loss", "bits_per_byte") for source in sources]
        self.columns += CLOCK
        before = self.path.read_text(encoding="utf-8").splitlines()[1:] if self.path.exists() else []
        kept = [line for line in before if line.partition(",")[0].isdigit() and int(line.partition(",")[0]) <= resumed]
        write_atomic(self.path, ("\n".join([",".join(self.columns), *kept]) + "\n").encode())
        self.said = 0.0
        self.started, self.first = time.monotonic(), resumed

    def row(self, step: int, tokens_per_second: float, **values: object) -> None:
        """Write one step."""
        now = time.monotonic()
        left = (now - self.started) / (step - self.first) * (self.last - step)
        row = {
            **values,
            "step": step,
            "tokens_per_second": f"{tokens_per_second:.1f}" if tokens_per_second else "",
            "seconds_left": f"{left:.0f}",
        }
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row)
        numbers = {key: float(str(row[key])) for key in self.columns if _is_number(row.get(key, ""))}
        for log in self.loggers:
            log(step, numbers)
        if now - self.said < LINE_SECONDS and step != self.last:
            return
        self.said = now
        loss, gradient = (f"{numbers[key]:.4f}" if key in numbers else "-" for key in ("loss", "gradient_norm"))
        print(
            f"step {step}/{self.last}  loss {loss}  gradient {gradient}  {tokens_per_second:,.0f} tokens/s  "
            f"{left:,.0f} s left",
            file=sys.stderr,
            flush=True,
        )


def _is_number(value: object) -> bool:
    try:
        return bool(np.isfinite(float(str(value))))
    except ValueError:
        return False


def loggers(run: Path, tensorboard: bool, wandb: bool) -> list[Logger]:
    """Functions that give a step's numbers to TensorBoard (RUN/tensorboard) and Weights & Biases, imported only then.
    Raises UserError where one is not installed."""
    made: list[Logger] = []
    if tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("--tensorboard needs the package tensorboard: pip install tensorboard") from error
        writer = SummaryWriter(str(run / "tensorboard"))
        made.append(lambda step, numbers: [writer.add_scalar(key, value, step) for key, value in numbers.items()])
    if wandb:
        try:
            import wandb as service  # type: ignore[import-not-found]
        except ImportError as error:
            raise UserError("--wandb needs the package wandb: pip install wandb") from error
        session = service.init(project="teratoken", name=run.name, dir=str(run), resume="allow")
        made.append(lambda step, numbers: session.log(numbers, step=step))
    return made


def flops_per_token(parameters: int, size: Preset, length: int) -> tuple[float, float]:
    """Training FLOPs a token in both conventions: 6N (Kaplan et al. 2020, section 2.1) and 6N + 12·L·d·T (Chowdhery et
    al. 2022, appendix B: attention counted whole, not causal). N: all parameters, the embedding included."""
    return 6.0 * parameters, 6.0 * parameters + 12.0 * size.layers * size.dimension * length


def peak_flops(device_name: str, half: bool, given: float | None) -> float | None:
    """FLOP/s that a device could do: what was given in TFLOP/s, or the table's for bf16; None where nothing is known.
    No number is guessed for a CPU or for fp32."""
    if given is not None:
        return given * 1e12
    found = [peak for name, peak in PEAKS.items() if name in device_name]
    return found[0] if found and half else None
