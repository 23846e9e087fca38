#!/usr/bin/env bash
# Started by Open MPI's mpirun, on one machine or on those of a host file: four processes, a rank each.
#   examples/launch/mpirun.sh DATA OUT [other options of penstock train…]
# PROCESSES says how many, MPIRUN_OPTIONS is for mpirun ("--hostfile hosts"), MASTER_ADDR is the machine of the first process, MASTER_PORT a
# port of it that is free, PENSTOCK the program where it is not on the path.
set -euo pipefail
if [[ $# -lt 2 ]]; then
  echo "usage: examples/launch/mpirun.sh DATA OUT [other options of penstock train…]" >&2
  exit 2
fi
processes="${PROCESSES:-4}"
export MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}" MASTER_PORT="${MASTER_PORT:-29500}"
# shellcheck disable=SC2086  # several words
exec mpirun -np "$processes" ${MPIRUN_OPTIONS:-} -x MASTER_ADDR -x MASTER_PORT "${PENSTOCK:-penstock}" train --data "$1" --out "$2" \
  --stages "$processes" --microbatches "$((2 * processes))" "${@:3}"
