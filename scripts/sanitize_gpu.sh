#!/usr/bin/env bash
# The tests of tests/gpu under every tool of compute-sanitizer, for a machine with a GPU and the CUDA toolkit.
# Leaks of torch's own caching allocator are not looked for.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v compute-sanitizer > /dev/null || { echo "compute-sanitizer is not on PATH: it comes with the CUDA toolkit"; exit 1; }
export STRUCTLV_REQUIRE_GPU=1 PYTORCH_NO_CUDA_MEMORY_CACHING=1 OMP_NUM_THREADS=1
for tool in memcheck racecheck initcheck synccheck; do
  echo "==> $tool"
  compute-sanitizer --tool "$tool" --error-exitcode 1 .venv/bin/python -m pytest -q -x tests/gpu "$@"
done
