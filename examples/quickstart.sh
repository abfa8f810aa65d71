#!/usr/bin/env bash
# From an empty Debian 12 to a trained model: installs what is missing, builds, and runs examples/02_fashion_mnist.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: examples/quickstart.sh [--no-install]

Installs the Debian 12 packages that are missing (as root, or with sudo), builds Basin into build/release, and trains
a multi-layer perceptron on Fashion-MNIST with 2 parameter servers, 2 workers and an evaluator, all on this machine.
The last line is: test accuracy 0.xxxx
It may be repeated: what is there already is used again.

  --no-install   install and fetch nothing; use what is there
  --help         print this
TEXT
}

install=1
for argument in "$@"; do
  case $argument in
    --no-install) install=0 ;;
    --help | -h) usage; exit 0 ;;
    *) echo "quickstart.sh: unknown argument '$argument' (see --help)" >&2; exit 2 ;;
  esac
done

# shellcheck source=cmake/prepare.sh
. cmake/prepare.sh

if [ $install = 1 ]; then
  need_debian build data
  install_packages build data
  fetch_protobuf
else
  warn_missing_packages build data
fi

if ! configure_and_build release "$(nproc)" -DBASIN_TESTS=OFF -DBASIN_BENCH=OFF -- basin-ps basin-worker basin; then
  echo "quickstart.sh: the build failed; the first error stands above" >&2
  exit 1
fi
say "training: build/release/bin/basin submit examples/02_fashion_mnist/job.yaml"
# Its own last line is the accuracy, so nothing may follow it.
exec build/release/bin/basin submit examples/02_fashion_mnist/job.yaml
