#!/usr/bin/env bash
# A job of Slurm: four tasks on as many nodes as Slurm likes, asked to save two minutes before the time is over. Submit it again to go on.
#   sbatch --ntasks=4 --time=12:00:00 --signal=TERM@120 examples/launch/slurm.sh DATA OUT [other options of penstock train…]
# DATA and OUT are folders that all nodes see. PENSTOCK names the program where it is not on the path.
set -euo pipefail
if [[ $# -lt 2 || -z ${SLURM_JOB_ID:-} ]]; then
  echo "usage: sbatch --ntasks=4 examples/launch/slurm.sh DATA OUT [other options of penstock train…]" >&2
  exit 2
fi
# Jobs on one node should not meet at one port.
export MASTER_PORT="${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}"
exec srun "${PENSTOCK:-penstock}" train --resume --data "$1" --out "$2" \
  --stages "$SLURM_NTASKS" --microbatches "$((2 * SLURM_NTASKS))" "${@:3}"
