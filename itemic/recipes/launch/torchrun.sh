#!/usr/bin/env bash
# One machine, all of its GPUs:
#   bash launch/torchrun.sh openonerec-stage1 [-s stages.0.steps=100 …]
# GPUS: processes to start, one a GPU (default: all that are there). STRATEGY: ddp or fsdp.
set -euo pipefail

recipe=${1:?usage: torchrun.sh RECIPE [options of itemic run]}
shift
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}

exec torchrun --standalone --nproc-per-node "${GPUS:-gpu}" \
    -m itemic run "$recipe" -s "distribution.strategy=${STRATEGY:-fsdp}" "$@"
