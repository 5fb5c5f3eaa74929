#!/usr/bin/env bash
# Everything about the trainer that needs a GPU, as one command: tests, then speed with a profile, then without options.
# Usage, from the project's root: benchmarks/on_gpu.sh [FOLDER]. Each part has a time limit; together under ten minutes.
set -uo pipefail
results=${1:-build/benchmarks}
timeout 150 python -m pytest -m gpu tests/trainer
timeout 200 python -m benchmarks train --device cuda --steps 20 --profile --results "$results/train-gpu.json"
timeout 100 python -m benchmarks train --device cuda --steps 10 --no-compile --results "$results/train-gpu-eager.json"
timeout 100 python -m benchmarks train --device cuda --steps 10 --deterministic --results "$results/train-gpu-same-bits.json"
