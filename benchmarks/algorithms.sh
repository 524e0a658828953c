#!/bin/sh
# Five algorithms, ten seeds each, on the default preset, and their comparison: about an hour on two
# cores. Its results are in docs/results/algorithms.md.
#     sh benchmarks/algorithms.sh [FOLDER]
set -eu
folder=${1:-runs/algorithms}
python=${PYTHON:-python}

train() { # NAME CONFIG [--set ...]
    name=$1 config=$2
    shift 2
    "$python" train.py "$config" --seeds 0-9 --set name="$name" --set output="$folder" \
        --set tracking.wandb=disabled --set evaluation.sessions=1024 "$@"
}

train mappo configs/default.yaml
train ippo-own configs/ippo_own.yaml
train ippo-shared configs/default.yaml --set algorithm.kind=ippo
train happo configs/default.yaml --set algorithm.kind=happo
train mappo-sequential configs/default.yaml --set environment.pipeline.sequential=true
"$python" evaluate.py compare "$folder"/*/ --markdown "$folder/algorithms.md" \
    --output "$folder/compare"
