#!/usr/bin/env bash
# One visit to a GPU, from the folder that `make gpu-pack` made: parity, timing, then training.
#
#   bash run.sh [--budget SECONDS] [--only parity|speed|train] [--small]
#
# --small tries parity and timing with small networks, on a CPU too. Needs no network and writes to $OUT (./results) and a
# temporary folder only. Ends with 1 where a part failed; every part's log and tables are in $OUT all the same.
set -u
cd "$(dirname "$0")" || exit 2
budget=480 only="" small=""
while [ $# -gt 0 ]; do
    case $1 in
    --budget) budget=$2; shift ;;
    --only) only=$2; shift ;;
    --small) small=--small ;;
    *) echo "run.sh: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
out=$(mkdir -p "${OUT:-results}" && cd "${OUT:-results}" && pwd) || exit 2
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME=$work XDG_CACHE_HOME=$work XDG_CONFIG_HOME=$work HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
export TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton
export PYTHONPATH=$PWD/src:$PWD
"$python" -c 'import torch, transformers, numpy, PIL, safetensors, cv2' || exit 2
# Carried wheels hold no compiled code, so unpacking installs them; packages that the machine has come first.
for wheel in wheels/*.whl; do
    [ -f "$wheel" ] && { "$python" -m zipfile -e "$wheel" "$work/site" || exit 2; }
done
mkdir -p "$work/site" "$work/start"
echo "import sys; sys.path.append('$work/site')" >"$work/start/sitecustomize.py"
export PYTHONPATH=$PYTHONPATH:$work/start
failed=0 begun=$(date +%s)

finish() { # name, exit code
    echo "== $1: exit $2, $(($(date +%s) - begun)) s since the start"
    [ "$2" -eq 0 ] || failed=1
}

measure() { # name, seconds, sections: a process of its own, so that a broken CUDA context costs one part
    local name=$1 limit=$2
    shift 2
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    timeout -k 5 $((limit + 40)) "$python" -m benchmarks.gpu $small --golden golden --out "$out/$name" \
        --budget "$limit" --only "$@" >"$out/$name.log" 2>&1
    finish "$name" $?
}

learn() { # seconds
    [ -z "$only" ] || [ "$only" = train ] || return 0
    [ -z "$small" ] && [ -d photos ] || return 0
    local teachers=()
    [ -d teachers ] && teachers=(--teachers teachers)
    timeout -k 5 $(($1 + 60)) "$python" -m srcli train builtin --data photos "${teachers[@]}" --out "$out/train" \
        --device cuda --batch 64 --jobs "$(($(nproc) - 1))" --budget "$1s" >"$out/train.log" 2>&1
    finish train $?
}

share() { # percent of the budget; all of it for a part that runs alone
    [ -n "$only" ] && echo "$budget" || echo $((budget * $1 / 100))
}

if [ -n "$small" ] || [ ! -d photos ]; then
    parts=(40 60)
else
    parts=(20 30)
fi
measure parity "$(share "${parts[0]}")" golden runs shortage
if [ -n "$small" ]; then
    measure speed "$(share "${parts[1]}")" eager whole sweep vae
else
    measure speed "$(share "${parts[1]}")" eager whole vae sweep compiled
fi
learn "$(share 50)"
found=()
for part in parity speed; do [ -f "$out/$part/gpu.json" ] && found+=("$out/$part/gpu.json"); done
if [ ${#found[@]} -gt 0 ]; then
    "$python" -m benchmarks.gpu.merge "${found[@]}" --out "$out" || failed=1
fi
exit $failed
