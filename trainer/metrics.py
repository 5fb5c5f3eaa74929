"""Metrics of a run: one CSV row per step, a line in the terminal now and then, and the curves drawn from the rows.

The columns of `CLOCK` depend on the machine; all others are the same in every run of the same plan.
"""

import csv
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from filters.errors import UserError
from manifests.files import write_atomic
from manifests.manifest import Manifest
from manifests.report.html import Html, element, read_style
from manifests.report.svg import Chart, Point, line_chart, stack_charts
from manifests.shard import open_shard
from manifests.sizes import Preset
from trainer.data import BatchReader, hash_batch
from trainer.events import VALIDATION, find_corpus, log, read_run, record_spike, write_rows
from trainer.parallel import Ranks, peak_memory
from trainer.step import StepMetrics

FILE = "metrics.csv"
LINE_SECONDS = 5.0  # between two lines in the terminal
CLOCK = ("tokens_per_second", "mfu_6n", "mfu_no_embedding", "mfu_attention", "memory_gb", "seconds_left")
CURVE_POINTS = 200  # most points of a curve; more are averaged with their neighbors
COUNT_TOKENS = 1 << 22  # tokens counted at a time
PEAKS = {  # dense bf16 FLOP/s by a part of the device's name, the first that fits: NVIDIA's data sheets, no sparsity
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
}

Logger = Callable[[int, dict[str, float]], object]  # receives a step and its numbers by column


class MetricsWriter:
    """Write the metrics of a run's steps; only the first rank has one.

    Rows after the resumed step are removed first, so that no step has two rows.

    Args:
        run: The run's folder.
        reader: Reader of the run's batches.
        ranks: This process among all.
        flops: Training FLOPs per token by convention, the result of `flops_per_token`.
        peak: FLOP/s of one device, None if not known.
        resumed: The step resumed from.
        last: The last step of this process.
        loggers: Functions that receive each step's numbers too.
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
        write_rows(run / FILE, ",".join(self.columns), resumed)
        self.printed = 0.0
        self.started = self.clock = time.monotonic()

    def write_skipped(self, step: int, rate: float) -> None:
        """Write the row of a step skipped on request."""
        self.clock = time.monotonic()
        log(self.run, "left out", step=step)
        self._write_row(step, 0.0, {"learning_rate": f"{rate:.8g}", "skipped": "asked"})

    def write_step(self, step: int, rate: float, metrics: StepMetrics, loss_limit: float | None) -> None:
        """Write the row of a step, and a spike if its loss or gradient norm was an outlier.

        Args:
            step: The step, counted from 1.
            rate: The learning rate.
            metrics: The step's metrics.
            loss_limit: The largest loss that would not have been an outlier; None if the loss was not.
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
        numbers = {column: number for column in self.columns if (number := _parse_finite(row.get(column))) is not None}
        for logger in self.loggers:
            logger(step, numbers)
        if now - self.printed < LINE_SECONDS and step != self.last:
            return
        self.printed = now
        loss, gradient = (f"{numbers[key]:.4f}" if key in numbers else "-" for key in ("loss", "gradient_norm"))
        line = f"loss {loss}  gradient {gradient}  {speed:,.0f} tokens/s  {left:,.0f} s left"
        print(f"step {step}/{self.last}  {line}", file=sys.stderr, flush=True)


def _parse_finite(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:  # an empty cell, a hash, or a truncated line
        return None
    return number if math.isfinite(number) else None


def open_loggers(run: Path, tensorboard: bool, wandb: bool) -> list[Logger]:
    """Return loggers to TensorBoard (RUN/tensorboard) and Weights & Biases, or raise UserError if not installed."""
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
    """Return a sum of losses in nats as bits per byte of text, or "" for no bytes."""
    return f"{nats / math.log(2) / size:.6f}" if size else ""


def flops_per_token(size: Preset, vocabulary: int, length: int) -> dict[str, float]:
    """Return training FLOPs per token in three conventions, by the column of metrics.csv that uses them.

    `mfu_6n` is 6N of all parameters (Kaplan et al. 2020, section 2.1), `mfu_no_embedding` 6N without the embedding,
    which multiplies nothing, and `mfu_attention` 6N + 12·L·d·T (Chowdhery et al. 2022, appendix B, which counts
    attention in full, not as causal).
    """
    parameters = size.count_parameters(vocabulary)
    return {
        "mfu_6n": 6.0 * parameters,
        "mfu_no_embedding": 6.0 * (parameters - vocabulary * size.dimension),
        "mfu_attention": 6.0 * parameters + 12.0 * size.layers * size.dimension * length,
    }


def peak_flops(device_name: str, half: bool, tflops: float | None) -> float | None:
    """Return the peak FLOP/s of a device: the TFLOP/s given, or for bf16 those of PEAKS; None if not known.

    No number is guessed for a CPU or for fp32.
    """
    if tflops is not None:
        return tflops * 1e12
    peaks = [peak for name, peak in PEAKS.items() if name in device_name]
    return peaks[0] if peaks and half else None


def plot(run: Path, output: Path | None, corpus: Path | None) -> str:
    """Draw a run's curves, from its CSV files alone, as a page or a picture.

    Args:
        run: The run's folder.
        output: A file that ends in .html or .svg, or None for RUN/curves.html.
        corpus: The corpus's folder, if it has moved.

    Returns:
        The path of the file.

    Raises:
        UserError: The file name has another ending, or there is no run or corpus.
    """
    target = output or run / "curves.html"
    if target.suffix not in (".html", ".svg"):
        raise UserError(f"--output {target} does not end in .html or .svg: give a file name that does")
    charts = build_charts(run, unigram_losses(run, corpus))
    drawn = stack_charts(charts) if target.suffix == ".svg" else render_page(run.resolve().name, charts)
    write_atomic(target, drawn.encode())
    return str(target)


def unigram_losses(run: Path, corpus: Path | None) -> dict[str, float]:
    """Return the unigram entropy of each source of a run in nats per token, or {} if its corpus is not there."""
    facts = read_run(run)
    if corpus is None and not (Path(facts["corpus"]) / "manifest.json").is_file():
        return {}
    try:
        return unigram_entropy(*find_corpus(run, facts["plan"]["manifest_sha"], corpus))
    except FileNotFoundError:  # the copy of a remote corpus, whose shards are evicted at any time
        return {}


def unigram_entropy(corpus: Path, manifest: Manifest) -> dict[str, float]:
    """Return the entropy of each source's tokens in nats, over its train shards, BOS and EOS included.

    It is the loss of a model that knows nothing but frequencies, so a trained model must reach less.
    """
    entropies = {}
    for name, source in sorted(manifest.sources.items()):
        counts = np.zeros(manifest.tokenizer.vocabulary, np.int64)
        for entry in source.train:
            tokens = open_shard(corpus / "shards" / entry.path).tokens
            for start in range(0, len(tokens), COUNT_TOKENS):
                counts += np.bincount(tokens[start : start + COUNT_TOKENS], minlength=len(counts))
        shares = counts[counts > 0] / max(1, counts.sum())
        entropies[name] = float(-(shares * np.log(shares)).sum())
    return entropies


def build_charts(run: Path, levels: dict[str, float]) -> list[Chart]:
    """Return the charts of a run: losses by source, held-out losses, learning rate, gradient norm; none is empty.

    Args:
        run: The run's folder.
        levels: Losses by source to draw as dashed levels.
    """
    rows, held_out = _read_rows(run / FILE), _read_rows(run / VALIDATION)
    if not rows:
        raise UserError(f"{run} has no metrics yet: train first")
    sources = sorted(name[5:] for name in rows[0] if name.startswith("loss_"))
    colors = {name: number for number, name in enumerate(sources, start=1)}
    curves = {name: (colors[name], _curve(rows, f"loss_{name}")) for name in sources}
    loss = Chart("Training loss, nats per token", curves)
    loss.curves["all"] = (0, _curve(rows, "loss"))  # last, so that it is drawn above the others
    loss.levels = {f"{name}: unigrams": (colors[name], levels[name]) for name in sources if name in levels}
    validation = Chart("Held-out loss, nats per token")
    for name in sorted({row["source"] for row in held_out}):
        mine = [row for row in held_out if row["source"] == name]
        validation.curves[name] = (colors.get(name, 0), _curve(mine, "loss"))
    rate = Chart("Learning rate", {"": (0, _curve(rows, "learning_rate"))})
    norm = Chart("Gradient norm before clipping", {"": (0, _curve(rows, "gradient_norm"))})
    return [chart for chart in (loss, validation, rate, norm) if any(points for _, points in chart.curves.values())]


def _read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []


def _curve(rows: Iterable[dict[str, str]], column: str) -> list[Point]:
    """Return (step, value) of the rows with a finite number, in at most CURVE_POINTS means of neighbors."""
    pairs = ((_parse_finite(row.get("step")), _parse_finite(row.get(column))) for row in rows)
    points = [(step, value) for step, value in pairs if step is not None and value is not None]
    size = -(-len(points) // CURVE_POINTS) or 1
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def render_page(name: str, charts: list[Chart]) -> Html:
    """Return a self-contained page of charts, without scripts."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width"),
        element("title", name),
        element("style", read_style("colors", "page", "curves")),
    )
    body = element("body", element("header", element("h1", name)), element("main", *map(line_chart, charts)))
    return Html(f"<!doctype html>\n{element('html', head, body, lang='en')}\n")
