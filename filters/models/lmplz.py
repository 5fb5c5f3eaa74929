"""kenlm's programs: lmplz, which estimates on disk and in C++, and build_binary, whose files load at once."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from filters.errors import UserError


def run_lmplz(program: Path, sentences: Path, arpa: Path, order: int, memory: str = "1G") -> None:
    """Estimate a model from a file of sentences, a line each, words between blanks; temporary files lie beside `arpa`.

    Without pruning, and with the fallback discounts, as CCNet calls it. Raises UserError.
    """
    scratch = f"{arpa.parent}/"
    command = [str(program), "--order", str(order), "--memory", memory, "--temp_prefix", scratch, "--skip_symbols"]
    _run([*command, "--text", str(sentences), "--arpa", str(arpa), "--discount_fallback"])  # last: it takes values


def build_binary(program: Path, arpa: Path, binary: Path) -> None:
    """Turn an ARPA file into kenlm's memory-mapped hash tables, shared by all processes that load it."""
    _run([str(program), "probing", str(arpa), str(binary)])


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise UserError(
            f"{command[0]} does not run ({error.strerror}): build kenlm's programs with `make lmplz`."
        ) from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise UserError(f"{command[0]} failed with code {done.returncode}: {said or 'it did not say why'}")
