#!/usr/bin/env bash
# Fills the ignored folder .whl with the packages that a GPU machine lacks and the tests need.
# On the machine: bash gpu/check.sh
#
# Everything that pyproject.toml asks for travels, but what such a machine has: HAS, by default the
# large packages that come with its torch.
set -euo pipefail
cd "$(dirname "$0")/.."
export HAS=${HAS:-torch torchvision scikit-learn opencv-python numpy safetensors pillow matplotlib click tqdm torchmetrics}
python=${PYTHON:-python3}
mkdir -p .whl
wanted=$("$python" - <<'P'
import os
import re
import tomllib

with open("pyproject.toml", "rb") as file:
    needs = tomllib.load(file)["project"]["dependencies"]
names = [re.match(r"[\w.-]+", need)[0] for need in needs]
print(*(name for name in names if name not in os.environ["HAS"].split()))
P
)
# shellcheck disable=SC2086 - a list of names
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" \
  --implementation cp --platform manylinux2014_x86_64 -d .whl $wanted
ls -l .whl
