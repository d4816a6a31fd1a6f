#!/usr/bin/env bash
# Fills the ignored folder .whl with the packages that a GPU machine lacks and the tests need.
# On the machine: bash gpu/check.sh
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .whl
"${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" \
  --implementation cp --platform manylinux2014_x86_64 -d .whl lpips torch-fidelity
ls -l .whl
