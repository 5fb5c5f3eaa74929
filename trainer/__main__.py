"""The command line of the trainer: `python -m trainer train | trace`, plain or under torchrun."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from manifests.errors import UserError
from trainer import options

FIRST_SPEAKS_SECONDS = 10
"""how long other ranks wait with a mistake that all of them find: torchrun ends them as soon as the first has said it,
and would end the first before that if they were quicker"""


def main(arguments: list[str]) -> int:
    """Run a command; gives the exit code: 0 well, 2 a mistake in what was asked for."""
    given = _parser().parse_args(arguments)
    try:
        return options.train(given) if given.command == "train" else _trace(given)
    except UserError as error:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(FIRST_SPEAKS_SECONDS)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _trace(given: argparse.Namespace) -> int:
    from trainer.trace import trace

    samples = trace(given.run, given.step, given.corpus)
    if given.json:
        print(json.dumps(samples, indent=2, ensure_ascii=False))
        return 0
    for sample in samples:
        place = f"{sample['shard']} from token {sample['token']}"
        print(f"sample {sample['sample']}  {sample['source']}  epoch {sample['epoch']}  {place}")
        for document in sample["documents"]:
            print(f"    {document['document']}  {document['url'] or document['file']}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train a LLaMA on a corpus.")
    commands = parser.add_subparsers(dest="command", required=True)
    options.add_train(commands)
    trace = commands.add_parser("trace", help="the documents of one step's batch")
    trace.add_argument("run", type=Path)
    trace.add_argument("--step", type=options.count, required=True, help="as metrics.csv counts them, from 1")
    trace.add_argument("--corpus", type=Path, help="where the corpus lies now (default: where it lay)")
    trace.add_argument("--json", action="store_true")
    return parser


def leave(code: int) -> NoReturn:
    """End this process now, without the destructors of native libraries: a thread that one of them has not joined by
    then aborts a run that is finished ("terminate called without an active exception")."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
