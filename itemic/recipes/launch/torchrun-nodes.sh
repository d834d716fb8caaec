#!/usr/bin/env bash
# Several machines that find each other by a rendezvous. Run the same line on each of them:
#   NODES=4 HEAD=node0 bash launch/torchrun-nodes.sh openonerec-stage2
# NODES: how many. HEAD: the name or address of one of them, which the others can reach at PORT. JOB: tells runs apart
# that share a head. GPUS: processes a machine. All machines must see the same files under the same paths.
set -euo pipefail

recipe=${1:?usage: torchrun-nodes.sh RECIPE [options of itemic run]}
shift
: "${NODES:?set NODES to the number of machines}" "${HEAD:?set HEAD to the address of one of them}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}

exec torchrun --nnodes "$NODES" --nproc-per-node "${GPUS:-8}" \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD:${PORT:-29500}" --rdzv-id "${JOB:-itemic}" \
    -m itemic run "$recipe" -s "distribution.strategy=${STRATEGY:-fsdp}" "$@"
