#!/bin/sh
# Teams trained with and without the optional components, five seeds each, on the default preset:
# the trainer, and the auditor where F also pays for keeping a topic below a fifth of what is shown.
# About half an hour on two cores.
#     sh benchmarks/optional_teams.sh [FOLDER]
set -eu
folder=${1:-runs/optional-teams}
python=${PYTHON:-python}

train() { # NAME COMPONENTS [--set ...]
    name=$1 components=$2
    shift 2
    "$python" train.py configs/default.yaml --seeds 0-4 --set name="$name" \
        --set output="$folder" --set tracking.wandb=disabled --set evaluation.sessions=1024 \
        --set "evaluation.baselines=[static]" \
        --set "environment.pipeline.components=[$components]" "$@"
}

limits='{retention: 0.1, extra_cost: -1.0, within_limits: 0.2}'
train four "profile, recall, feature, ranking"
train trainer "trainer, profile, recall, feature, ranking"
set -- --set environment.pipeline.audit.max_topic_share=0.2 --set "environment.rewards.team=$limits"
train limits-four "profile, recall, feature, ranking" "$@"
train limits-auditor "profile, recall, feature, auditor, ranking" "$@"
"$python" evaluate.py compare "$folder"/*/ --markdown "$folder/optional-teams.md" \
    --output "$folder/compare"
