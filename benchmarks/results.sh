#!/usr/bin/env bash
# Everything in docs/results and the tables of docs/pipeline.md, made anew, part by part. A part whose file is
# there is left alone, so that the command goes on where it was stopped; each says how long it took.
#     bash benchmarks/results.sh [FOLDER [PART...]]
# On two cores: text and optional 3 minutes, algorithms about an hour, game 10 minutes, ladder 10, rich half
# an hour, anarchy an hour, exploitability half an hour; the suite says its own estimate.
set -euo pipefail
folder=${1:-runs/results}
shift || true
parts=${*:-text optional algorithms game ladder rich anarchy exploitability suite}
python=${PYTHON:-python}
mkdir -p "$folder"

part() { # FILE COMMAND...: run it unless its file is there
    local file=$folder/$1 begin=$SECONDS
    shift
    [ -e "$file" ] && return
    "$@"
    echo "$file: $((SECONDS - begin)) s"
}
printed() { # FILE COMMAND...: keep what it prints
    local file=$folder/$1
    shift
    "$@" >"$file.part"
    mv "$file.part" "$file"
}

for name in $parts; do
    case $name in
    text) part text.txt printed text.txt "$python" benchmarks/text_features.py ;;
    optional) part optional.txt printed optional.txt "$python" benchmarks/optional_components.py ;;
    algorithms) part algorithms/algorithms.md env PYTHON="$python" sh benchmarks/algorithms.sh "$folder/algorithms" ;;
    game)
        runs=()
        for run in "$folder"/algorithms/mappo-mappo-*; do runs+=(--run "$run"); done
        part game.json "$python" evaluate.py game configs/default.yaml "${runs[@]}" --budget 144 \
            --search-sessions 96 --seeds 3 --sessions 1024 --output "$folder/game.json"
        ;;
    ladder) part ladder.json "$python" evaluate.py game configs/default.yaml --part ladder \
        --run "$folder"/algorithms/mappo-mappo-seed0-* --budget 144 --search-sessions 96 --seeds 1 \
        --sessions 512 --tries 16 --output "$folder/ladder.json" ;;
    rich) part rich.txt printed rich.txt "$python" train.py configs/default.yaml configs/rich.yaml --seeds 0-9 \
        --set output="$folder/rich" --set tracking.wandb=disabled --set evaluation.sessions=1024 ;;
    anarchy) part anarchy "$python" evaluate.py equilibrium --config configs/default.yaml --parts anarchy \
        --widths 10,12,20 --mixing 1 --budget 48 --seeds 3 --sessions 96 --held-out 2048 --starts 2 --rounds 8 \
        --output "$folder/anarchy" ;;
    exploitability) part exploitability "$python" evaluate.py equilibrium "$folder"/algorithms/mappo-mappo-seed0-* \
        "$folder"/algorithms/ippo-own-ippo-seed0-* --parts exploitability,credit,swaps --budget 32 --seeds 3 \
        --sessions 64 --held-out 512 --response-steps 20000 --output "$folder/exploitability" ;;
    suite) part suite/suite.json "$python" evaluate.py suite --seeds 0-9 --output "$folder/suite" \
        --algorithms claims,mappo,ippo,happo,mappo-recurrent,mappo-messages,ippo-own,vdn ;;
    *) echo "no part '$name'; there are: text optional algorithms game ladder rich anarchy exploitability suite" >&2; exit 2 ;;
    esac
done
