#!/bin/sh
# Five algorithms, two of them also without looking ahead, ten seeds each, on the default preset, and
# their comparison: about an hour on two cores. Its results are in docs/results/algorithms.md.
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
# The other baselines are the same for all; once is enough.
set -- "evaluation.baselines=[static]"
train ippo-own configs/ippo_own.yaml --set "$1"
# γ = 0: a component maximises this request's reward, and is not paid for keeping the user.
train ippo-own-request configs/ippo_own.yaml --set algorithm.gamma=0 --set "$1"
train ippo-shared configs/ippo_own.yaml --set environment.rewards.mode=shared --set "$1"
train happo configs/default.yaml --set algorithm.kind=happo --set "$1"
train mappo-request configs/default.yaml --set algorithm.gamma=0 --set "$1"
train mappo-sequential configs/default.yaml --set environment.pipeline.sequential=true \
    --set "$1"
"$python" evaluate.py compare "$folder"/*/ --markdown "$folder/algorithms.md" \
    --output "$folder/compare"
