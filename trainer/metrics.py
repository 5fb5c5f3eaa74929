"""Write the metrics of a run: one CSV row per step, and a line in the terminal every few seconds.

The columns of `CLOCK` depend on the machine. All other columns are the same in every run of the same plan.
"""

import csv
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from filters.errors import UserError
from manifests.sizes import Preset
from trainer.data import BatchReader, hash_batch
from trainer.events import log, record_spike, write_rows
from trainer.parallel import Ranks, peak_memory
from trainer.step import StepMetrics

FILE = "metrics.csv"
LINE_SECONDS = 5.0  # minimum number of seconds between two lines in the terminal
CLOCK = ("tokens_per_second", "mfu_6n", "mfu_no_embedding", "mfu_attention", "memory_gb", "seconds_left")
# Part of a device's name -> FLOP/s of dense bf16 products, from NVIDIA's data sheets, without sparsity. The first entry
# whose key is in the name is used.
PEAKS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
}

Logger = Callable[[int, dict[str, float]], object]  # takes a step and a dict from column name to number


class MetricsWriter:
    """A writer of the metrics of each step. Only the first rank has a writer.

    Rows after the resumed step are removed first, so that no step has two rows.

    Args:
        run: The run's folder.
        reader: Reader of the run's batches.
        ranks: This process among all.
        flops: Training FLOPs per token, the result of `flops_per_token`.
        peak: Peak FLOP/s of one device, or None if not known.
        resumed: The step of the checkpoint from which the run continues, or 0.
        last: The last step of this process.
        loggers: Functions that also receive the numbers of each step.
    """

    def __init__(
        self,
        run: Path,
        reader: BatchReader,
        ranks: Ranks,
        flops: dict[str, float],
        peak: float | None,
        resumed: int,
        last: int,
        loggers: Sequence[Logger],
    ) -> None:
        self.run, self.reader, self.device, self.loggers = run, reader, ranks.device, loggers
        self.mfu = {name: each / (peak * ranks.world) for name, each in flops.items()} if peak else {}
        self.resumed, self.last = resumed, last
        self.sources = [source.name for source in reader.plan.sources]
        self.tokens = reader.plan.global_batch * reader.plan.sequence_length
        self.columns = ["step", "tokens", "loss", "bits_per_byte", "learning_rate", "gradient_norm", "skipped", "batch"]
        self.columns += [f"{kind}_{source}" for kind in ("loss", "bits_per_byte") for source in self.sources]
        self.columns += CLOCK
        write_rows(run / FILE, resumed, ",".join(self.columns))
        self.printed = 0.0
        self.started = self.clock = time.monotonic()

    def write_skipped(self, step: int, rate: float) -> None:
        """Write the row of a step that `--skip-steps` names."""
        self.clock = time.monotonic()
        log(self.run, "left out", step=step)
        self._write_row(step, 0.0, {"learning_rate": f"{rate:.8g}", "skipped": "asked"})

    def write_step(self, step: int, rate: float, metrics: StepMetrics, loss_limit: float | None) -> None:
        """Write the row of a step. If its loss or gradient norm was an outlier, record a spike too.

        Args:
            step: The step, counted from 1.
            rate: The learning rate.
            metrics: The step's metrics.
            loss_limit: If the loss was an outlier, the largest loss that would not have been one; else None.
        """
        before, self.clock = self.clock, time.monotonic()
        speed = self.tokens / (self.clock - before)
        row = {
            "learning_rate": f"{rate:.8g}",
            "loss": repr(float(metrics.losses.sum() / self.tokens)),
            "bits_per_byte": format_bits_per_byte(metrics.losses.sum(), int(metrics.bytes.sum())),
            "gradient_norm": f"{metrics.norm:.6g}",
            "skipped": metrics.skipped,
            "batch": hash_batch(metrics.digests.tolist()),
            "memory_gb": f"{peak_memory(self.device) / 1e9:.3f}",
            **{name: f"{speed * share:.4f}" for name, share in self.mfu.items()},
        }
        for number, source in enumerate(self.sources):
            mine = metrics.sources == number
            if mine.any():
                nats = float(metrics.losses[mine].sum())
                row[f"loss_{source}"] = f"{nats / (mine.sum() * self.reader.plan.sequence_length):.6f}"
                row[f"bits_per_byte_{source}"] = format_bits_per_byte(nats, int(metrics.bytes[mine].sum()))
        self._write_row(step, speed, row)
        causes = ["loss"] * (loss_limit is not None) + ["gradient norm"] * bool(metrics.skipped)
        if causes:
            limit = np.inf if loss_limit is None else loss_limit
            record_spike(self.run, self.reader, step, metrics, limit, causes)

    def _write_row(self, step: int, speed: float, values: dict[str, str]) -> None:
        """Append a row to metrics.csv, call the loggers, and print a line if it is time.

        Args:
            step: The step, counted from 1.
            speed: Tokens per second, or 0 for a skipped step.
            values: A dict from column to text. Columns that all rows have are added.
        """
        now = time.monotonic()
        left = (now - self.started) / (step - self.resumed) * (self.last - step)
        row = {
            **values,
            "step": str(step),
            "tokens": str(step * self.tokens),
            "tokens_per_second": f"{speed:.1f}" if speed else "",
            "seconds_left": f"{left:.0f}",
        }
        with (self.run / FILE).open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row)
        numbers = {column: number for column in self.columns if (number := parse_finite(row.get(column))) is not None}
        for logger in self.loggers:
            logger(step, numbers)
        if now - self.printed < LINE_SECONDS and step != self.last:
            return
        self.printed = now
        loss, gradient = (f"{numbers[key]:.4f}" if key in numbers else "-" for key in ("loss", "gradient_norm"))
        line = f"loss {loss}  gradient {gradient}  {speed:,.0f} tokens/s  {left:,.0f} s left"
        print(f"step {step}/{self.last}  {line}", file=sys.stderr, flush=True)


def parse_finite(value: str | None) -> float | None:
    """Parse the text of a cell as a number. Return None if it is not a finite number."""
    try:
        number = float(value or "")
    except ValueError:  # The cell is empty, a hash, or part of a truncated line.
        return None
    return number if math.isfinite(number) else None


def open_loggers(run: Path, tensorboard: bool, wandb: bool) -> list[Logger]:
    """Return loggers to TensorBoard (RUN/tensorboard) and Weights & Biases, if requested.

    Raises:
        UserError: The package is not installed.
    """
    loggers: list[Logger] = []
    if tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("--tensorboard needs the package tensorboard: pip install tensorboard") from error
        writer = SummaryWriter(str(run / "tensorboard"))
        loggers.append(lambda step, numbers: [writer.add_scalar(key, value, step) for key, value in numbers.items()])
    if wandb:
        try:
            import wandb as service  # type: ignore[import-not-found]
        except ImportError as error:
            raise UserError("--wandb needs the package wandb: pip install wandb") from error
        session = service.init(project="teratoken", name=run.name, dir=str(run), resume="allow")
        loggers.append(lambda step, numbers: session.log(numbers, step=step))
    return loggers


def format_bits_per_byte(nats: float, size: int) -> str:
    """Format a sum of losses as bits per byte of text.

    Args:
        nats: Sum of the losses in nats.
        size: Bytes of the text. If it is 0, the result is "".
    """
    return f"{nats / math.log(2) / size:.6f}" if size else ""


def flops_per_token(size: Preset, vocabulary: int, length: int) -> dict[str, float]:
    """Return a dict from a column of metrics.csv to the training FLOPs per token by the column's formula.

    - `mfu_6n`: 6N, where N counts all parameters (Kaplan et al. 2020, section 2.1).
    - `mfu_no_embedding`: 6N without the embedding, because the embedding is a lookup and not a product.
    - `mfu_attention`: 6N + 12·L·d·T (Chowdhery et al. 2022, appendix B). This formula counts full attention, although
      the attention is causal.

    Args:
        size: The model's size.
        vocabulary: Rows of the embedding.
        length: Tokens of a sequence.
    """
    parameters = size.count_parameters(vocabulary)
    return {
        "mfu_6n": 6.0 * parameters,
        "mfu_no_embedding": 6.0 * (parameters - vocabulary * size.dimension),
        "mfu_attention": 6.0 * parameters + 12.0 * size.layers * size.dimension * length,
    }


def peak_flops(device_name: str, half: bool, tflops: float | None) -> float | None:
    """Return the peak FLOP/s of a device, or None if it is not known, as for a CPU or for fp32.

    Args:
        device_name: Name of the GPU, or "".
        half: True if products are computed in bf16.
        tflops: Peak TFLOP/s given by the user. It replaces the value of PEAKS.
    """
    if tflops is not None:
        return tflops * 1e12
    peaks = [peak for name, peak in PEAKS.items() if name in device_name]
    return peaks[0] if peaks and half else None
