"""Run `make ablation`: check that small models reveal a planted fault of a recipe, and no difference if there is none.

Usage: `python samples/ablation.py`. It writes to build/ablation and skips work that is finished there. It builds three
corpora (arms) and trains three models with different seeds on each: recipes/ablation.yaml, recipes/ablation-raw.yaml,
which has the planted fault, and recipes/ablation-null.yaml, whose models read the same documents in another order.
"""

import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLES, OUT = "build/samples", "build/ablation"
ARMS = ("ablation", "ablation-raw", "ablation-null")
REFERENCE, HELD_OUT = "ablation-held-out", f"{OUT}/held-out.jsonl"
SEEDS = (0, 1, 2)
TRAIN = "--model demo --steps 250 --batch-tokens 2048"  # 512,000 tokens per run


def main() -> int:
    """Run every command. Return 0 if the models reveal the planted fault and no difference for the null arm, else 1."""
    os.chdir(ROOT)
    started = time.monotonic()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    run(f"samples/make.py {SAMPLES}")
    run(f"samples/mirrors.py {SAMPLES} {OUT}/mirrors")
    for name in (REFERENCE, *ARMS):
        run(f"-m pipeline run recipes/{name}.yaml --output {OUT}/{name}")
    corpora = " ".join(f"{OUT}/{name}" for name in (REFERENCE, *ARMS))
    print(run(f"-m manifests freeze {corpora} --output {HELD_OUT}"))
    with ThreadPoolExecutor(max(1, min(cores, len(ARMS) * len(SEEDS)))) as pool:  # Each run uses one thread.
        trained = [
            pool.submit(run, f"-m trainer train {OUT}/{arm} {TRAIN} --seed {seed} --output {runs(arm, seed)}")
            for seed in SEEDS
            for arm in ARMS
        ]
        for one in trained:
            one.result()
    planted, null = (compare(arm) for arm in ARMS[1:])
    found, quiet = "is worse than" in planted, "no difference seen" in null
    print(
        f"\nplanted fault: {'found' if found else 'NOT FOUND'}. No difference where none is: {'yes' if quiet else 'NO'}"
    )
    print(f"all commands took {time.monotonic() - started:.0f} s")
    return 0 if found and quiet else 1


def compare(arm: str) -> str:
    """Compare an arm with the first arm. Print and return the output of `trainer compare`."""
    folders = " ".join(runs(one, seed) for one in (ARMS[0], arm) for seed in SEEDS)
    text = run(f"-m trainer compare {folders} --held-out {HELD_OUT}")
    print(text)
    return text


def runs(arm: str, seed: int) -> str:
    """Return the folder of the training run of an arm with a seed."""
    return f"{OUT}/runs/{arm}-{seed}"


def run(command: str) -> str:
    """Print and run a Python command and return its standard output.

    Raises:
        SystemExit: If the command fails. The message contains its output and its exit code.
    """
    print(f"$ python {command}", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *shlex.split(command)], capture_output=True, encoding="utf-8", env=environment, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}exit code {done.returncode}")
    return done.stdout.rstrip()


if __name__ == "__main__":
    sys.exit(main())
