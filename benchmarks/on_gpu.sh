#!/usr/bin/env bash
# Run all tests and measurements of the trainer that need a GPU: the tests, the speed with a profile, the speed without
# torch.compile, and the speed with deterministic algorithms.
# Usage, in the project's root: benchmarks/on_gpu.sh [FOLDER]. Results are written to FOLDER. Each part has a time limit;
# all parts together take less than ten minutes.
set -uo pipefail
results=${1:-build/benchmarks}
timeout 150 python -m pytest -m gpu tests/trainer
timeout 200 python -m benchmarks train --device cuda --steps 20 --profile --results "$results/train-gpu.json"
timeout 100 python -m benchmarks train --device cuda --steps 10 --no-compile --results "$results/train-gpu-eager.json"
timeout 100 python -m benchmarks train --device cuda --steps 10 --deterministic --results "$results/train-gpu-same-bits.json"
