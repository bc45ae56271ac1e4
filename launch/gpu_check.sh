#!/usr/bin/env bash
# Measures the flagship and the parity model on one GPU, in at most eight minutes.
#
#   launch/gpu_check.sh [--out FILE] [--minutes N] [--models NAME …] [--device cpu] [--quick]
#
# Pretraining throughput, memory and model FLOPs utilisation (bf16, 128³, batches of 1 to 16), with
# recomputation and torch.compile; latency and memory of one 128³ study in inference; grouped
# products against the loop over experts; bf16 against fp32. Each measurement has a limit of its
# own; what would exceed it is stopped, named in the result and left out. Writes JSON, by default
# gpu_check.json. Exit codes: 0 all measured or left out for time, 1 something failed, 2 wrong call.
#
# Needs Python 3.11 to 3.13 with torch (2.11 or later, with CUDA), triton, numpy, safetensors, tqdm.
# Nothing is installed, downloaded or written into the checkout; input is made on the fly.
# GLIOMOE_PYTHON names another Python than python3.
set -euo pipefail

case "${1:-}" in
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
esac

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python=${GLIOMOE_PYTHON:-$(command -v python3 || command -v python)}

# The folders of the checkout under the names that the installed package has, and its version,
# which Python reads from metadata.
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mkdir "$site/gliomoe"
ln -s "$root"/launch/root/*.py "$site/gliomoe/"
for folder in data_shards finetune launch model_cards models pretrain; do
    ln -s "$root/$folder" "$site/gliomoe/$folder"
done
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
mkdir "$site/gliomoe-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: gliomoe\nVersion: %s\n' "$version" \
    >"$site/gliomoe-$version.dist-info/METADATA"

PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1 \
    "$python" -m gliomoe.launch.bench.gpu "$@"
