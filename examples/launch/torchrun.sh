#!/usr/bin/env bash
# One machine, started by torchrun: four processes, a rank each.
#   examples/launch/torchrun.sh DATA OUT [other options of penstock train…]
# PROCESSES says how many; TORCHRUN and PENSTOCK name the programs where they are not on the path.
set -euo pipefail
if [[ $# -lt 2 ]]; then
  echo "usage: examples/launch/torchrun.sh DATA OUT [other options of penstock train…]" >&2
  exit 2
fi
processes="${PROCESSES:-4}"
exec "${TORCHRUN:-torchrun}" --nproc-per-node "$processes" --no-python "${PENSTOCK:-penstock}" train --data "$1" --out "$2" \
  --stages "$processes" --microbatches "$((2 * processes))" "${@:3}"
