#!/usr/bin/env bash
# What to run on one GPU of which fifteen minutes are at hand: bash scripts/on_accelerator.sh DATA.npz OUT [MINUTES]
# DATA.npz is Fashion-MNIST's training set. The tests and benchmarks take about three minutes, training MINUTES (7), and
# drawing and measuring 10,000 images for each average the rest. Each step has a limit of its own, leaves what it has in
# OUT, and does not stop those after it. Run where `python` has fewstep's [all,dev] extras and a torch with CUDA; the
# embedded weights of this checkout are replaced while averages are compared, and put back at the end.
set -uo pipefail
data="$(realpath "$1")"
mkdir -p "$2"
out="$(realpath "$2")"
minutes="${3:-7}"
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src"
weights=src/fewstep/models/fashion_mnist
work="$(mktemp -d)"
cp "$weights"/*.safetensors "$weights/config.json" "$work"
trap 'cp "$work"/*.safetensors "$work/config.json" "$weights"; rm -rf "$work"' EXIT

step() { # step NAME SECONDS COMMAND...: its output goes to OUT/NAME.log, how it ended and when to OUT/steps.txt
    local name="$1" seconds="$2" began="$SECONDS" code=0
    shift 2
    timeout "$seconds" "$@" >"$out/$name.log" 2>&1 || code=$?
    echo "$name: exit $code after $((SECONDS - began)) s" | tee -a "$out/steps.txt"
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/steps.txt"

step tests-noise-graph 120 python -m pytest -q tests/executor/test_philox.py tests/executor/test_graph.py \
    tests/metrics/test_neighbours.py tests/metrics/test_extractor.py
step profile-loop 60 python benchmarks/generate_profile.py --device cuda --num 4096 --json "$out/profile-loop.json"

step train $((60 * minutes + 60)) python scripts/train_embedded_model.py --data "$data" --out "$work/run" \
    --device cuda --batch 1024 --minutes "$minutes" --compile --channels 32 64 128 --ema 0.1 0.05 0.15
[ -d "$work/run/unet" ] && cp -r "$work/run"/unet* "$work/run/loss.jsonl" "$out"

step distance-before 60 bash -c "fewstep generate --device cuda --steps 100 --num 10000 --batch-size 1000 --graph \
    --out '$work/before' && fewstep evaluate '$work/before' --device cuda --out '$out/distance-before.json'"
for folder in "$work/run"/unet*; do
    [ -f "$folder/config.json" ] || continue
    name="$(basename "$folder")"
    cp "$folder"/*.safetensors "$folder/config.json" "$weights"
    step "distance-$name" 60 bash -c "fewstep generate --device cuda --steps 100 --num 10000 --batch-size 1000 --graph \
        --out '$work/$name' && fewstep evaluate '$work/$name' --device cuda --out '$out/distance-$name.json'"
done

step overhead 60 python benchmarks/step_overhead.py --device cuda
step scheduler 60 python benchmarks/scheduler_step.py --device cuda
cp benchmarks/results/*-cuda.json "$out" 2>/dev/null
step tests-others 180 python -m pytest -q tests/executor/test_waiting.py tests/integrations/test_diffusers_compile.py \
    tests/scripts/test_train_embedded_model.py tests/cli/generate/test_command.py -k "gpu or cuda"
grep -H . "$out/steps.txt"
