#!/usr/bin/env bash
# DeepSpeed's launcher on the machines of a host file (ssh without a password between them):
#   HOSTFILE=hostfile bash launch/deepspeed.sh openonerec-stage2
# HOSTFILE: see hostfile.example; without it the GPUs of this machine. CONFIG: zero2.json or zero3.json.
set -euo pipefail

recipe=${1:?usage: deepspeed.sh RECIPE [options of itemic run]}
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
hosts=()
if [[ -n "${HOSTFILE:-}" ]]; then
    hosts=(--hostfile "$HOSTFILE")
fi

exec deepspeed "${hosts[@]}" --no_local_rank --module itemic run "$recipe" \
    -s distribution.strategy=deepspeed -s "distribution.config=${CONFIG:-$here/zero2.json}" "$@"
