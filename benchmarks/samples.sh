#!/usr/bin/env bash
# Ten results in small, to compare two checkouts digit by digit (ten minutes of one core):
#   bash benchmarks/samples.sh /tmp/before     # in one checkout
#   bash benchmarks/samples.sh /tmp/after      # in the other
#   diff -r /tmp/before/printed /tmp/after/printed
# PY names the Python; what is printed to files holds no times and no paths.
set -uo pipefail
out=$(realpath -m "${1:?usage: bash benchmarks/samples.sh FOLDER}")
py=${PY:-.venv/bin/python}
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 COLUMNS=200 NO_COLOR=1
mkdir -p "$out/printed"

note() { sed -e "s#$out#OUT#g" -e '/^Run folder/d' -e '/^written/d' >"$out/printed/$1.txt"; }
scores() {  # every number of an evaluation, by policy
  "$py" - "$1" <<'EOF'
import json, sys
record = json.load(open(f"{sys.argv[1]}/evaluation.json"))
def walk(value, path):
    if isinstance(value, dict):
        for key in sorted(value):
            yield from walk(value[key], [*path, key])
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not {"seconds", "time"} & set(path):
            yield f"{'/'.join(path)} {value:.6g}"
for line in walk(record.get("policies", record), []):
    print(line)
EOF
}
train() {  # name, configuration, overrides
  local name=$1 config=$2 sets=() key
  shift 2
  for key in training.env_steps=20000 training.checkpoint_every=20000 sampling.num_sessions=64 \
    sampling.rollout_length=16 evaluation.sessions=64 tracking.wandb=disabled "$@"; do
    sets+=(--set "$key")
  done
  "$py" train.py "$config" "${sets[@]}" --run-dir "$out/$name" >"$out/$name.log" 2>&1 ||
    tail -2 "$out/$name.log"
  scores "$out/$name" 2>&1 | note "$name"
}

train mappo configs/default.yaml
train ippo_own configs/ippo_own.yaml
train drifting configs/drifting.yaml
for scenario in ecommerce streaming social ads finance; do
  train "$scenario" "configs/scenarios/$scenario.yaml"
done
"$py" evaluate.py calibration configs/default.yaml --output "$out/calibration" 2>&1 | note calibration
"$py" evaluate.py game configs/default.yaml --run "$out/mappo" --budget 8 --search-sessions 16 \
  --seeds 1 --sessions 64 --output "$out/game.json" 2>&1 | note game
"$py" evaluate.py equilibrium "$out/mappo" --parts exploitability,credit --budget 4 --seeds 1 \
  --sessions 8 --held-out 16 --response-steps 0 --output "$out/equilibrium" 2>&1 | note equilibrium
"$py" evaluate.py explain "$out/mappo" --session 3 2>&1 | note explain
"$py" evaluate.py off-policy "$out/mappo" --sessions 128 --output "$out/off_policy" 2>&1 | note off_policy
"$py" evaluate.py equilibrium --game penalty:-25 --output "$out/matrix" 2>&1 | note matrix
