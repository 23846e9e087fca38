#!/usr/bin/env bash
# One of several nodes, without any launcher: call it on each, with its number, from 0.
#   MASTER_ADDR=10.0.0.1 examples/launch/node.sh NODE NODES DATA OUT [other options of penstock train…]
# MASTER_ADDR is node 0's address as the others see it. OUT is a folder that all of them see. PENSTOCK names the program where it is not on the path.
set -euo pipefail
if [[ $# -lt 4 ]]; then
  echo "usage: MASTER_ADDR=… examples/launch/node.sh NODE NODES DATA OUT [other options of penstock train…]" >&2
  exit 2
fi
export RANK="$1" WORLD_SIZE="$2" MASTER_ADDR MASTER_PORT="${MASTER_PORT:-29500}"
exec "${PENSTOCK:-penstock}" train --data "$3" --out "$4" --stages "$2" --microbatches "$((2 * $2))" "${@:5}"
