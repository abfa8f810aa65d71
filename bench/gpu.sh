#!/usr/bin/env bash
# gpu.sh [--json FILE] [--seconds S] [--sanitize] [--limit S] [PROGRAMS]: everything that Basin has to show on a GPU, in under 8
# minutes: the tests with the label gpu, the kernel ladders, and the step time of the built-in programs. --sanitize: the tests under
# compute-sanitizer instead, memcheck and racecheck. PROGRAMS is a build folder or an unpacked
# bundle made with -DBASIN_BUNDLE_TESTS=GPU (default: the one that this file lies in). It needs python3, a driver for the CUDA of the build
# (580 or later for CUDA 13), and for what multiplies matrices cuBLAS: from the loader's path, a toolkit, or a Python package.
# Exit code: 0; 1 a test or a check failed; 2 wrong use; 77 there is no device.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if ! command -v python3 >/dev/null; then
  echo "gpu.sh: python3 is missing: it starts the parts and writes the results. The parts themselves do not need it:" >&2
  echo "  tests/cuda_*_test, tests/gpu_client_test, tests/device_test --gtest_filter='Gpu*', bench/bench_kernels --json FILE" >&2
  exit 2
fi
exec python3 -B "$here/gpu.py" "$@"
