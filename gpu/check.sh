#!/usr/bin/env bash
# Everything that needs a CUDA device, in one call from anywhere: the tests marked "gpu", then a benchmark of two minutes.
#
# The machine needs torch, OpenCV, scikit-learn, safetensors, torchmetrics and pytest. What else the package wants travels as
# wheels in .whl (gpu/prepare.sh). Results go to the folder $OUT, or gpu/out. PUBLISHED may name a checkout of the published
# code to measure beside.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=${OUT:-$PWD/gpu/out}
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
if compgen -G ".whl/*.whl" >/dev/null; then
  site=$(mktemp -d)
  "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" .whl/*.whl || exit 1
  export PYTHONPATH=$site:$PYTHONPATH
fi
"$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' 2>/dev/null || {
  echo "gpu/check.sh: $python has no torch, or this machine no CUDA device" >&2
  exit 1
}

echo "== tests"
timeout "${TESTS_SECONDS:-360}" "$python" -m pytest -q -m gpu -p no:cacheprovider -p no:randomly tests 2>&1 | tee "$out/tests.log"
tested=$?

echo "== benchmark"
published=()
[ -n "${PUBLISHED:-}" ] && published=(--published "$PUBLISHED")
timeout "${BENCHMARK_SECONDS:-200}" "$python" benchmarks/gpu.py --quick --seconds 120 "${published[@]}" --json "$out/gpu.json" 2>&1 |
  tee "$out/gpu.log"
measured=$?
exit $((tested > measured ? tested : measured))
