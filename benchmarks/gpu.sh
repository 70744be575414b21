#!/usr/bin/env bash
# All that a GPU is needed for, in one command: tests on it, the Encoder, its execution modes, training, a run of two stages.
#
#     benchmarks/gpu.sh OUT
#
# OUT gets one log a part and the card's name; a part that fails does not stop the others, and is named at the end.
# Nothing of it has been run yet: what it prints belongs into docs/performance.md.
set -uo pipefail
: "${1:?"say where the logs go: benchmarks/gpu.sh OUT"}"
out=$(realpath -m "$1")
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-.venv/bin/python}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
failed=()

part() { # part NAME COMMAND...: run it, keep what it says
    local name=$1
    shift
    echo "== $name: $*"
    "$@" >"$out/$name.log" 2>&1 || { failed+=("$name"); tail -n 3 "$out/$name.log"; }
}

"$python" - <<'PYTHON' | tee "$out/card.txt" || exit 1
import sys, torch, transformers, sentence_transformers
if not torch.cuda.is_available():
    sys.exit("There is no GPU that PyTorch sees; nothing was run.")
card = torch.cuda.get_device_properties(0)
print(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, torch {torch.__version__}, "
      f"transformers {transformers.__version__}, sentence-transformers {sentence_transformers.__version__}")
PYTHON

part tests "$python" -m pytest -q -m gpu tests
# which way each model runs, and how far it is from float32: varlen, compiled, 8-bit floats
part modes "$python" benchmarks/execution_modes.py --device cuda --modes default sdpa varlen compiled float8
# against sentence-transformers with flash attention, on SmolLM2's shape and on one of a billion parameters
part encoder-small "$python" benchmarks/encoder.py --device cuda --layers 30 --arms eager compiled float8 --sizes 32 128 512
part encoder-1b "$python" benchmarks/encoder.py --device cuda --layers 16 --width 2048 --arms eager compiled float8 \
    --sizes 32 128 512
# forward and backward of a batch, and whether gradients are the same
part gradients "$python" benchmarks/training.py --device cuda --shape tiny --dtype float32 --pairs 8 --check
part training-small "$python" benchmarks/training.py --device cuda --shape small --pairs 64
part training-medium "$python" benchmarks/training.py --device cuda --shape medium --pairs 64
# the two stages from end to end in bf16, on the embedded model and its own data
part run "$python" -m antiphon.cli train recipes/nano/anchor.toml --set steps=200 --set precision=bf16 --set "out=$out/run"
# memory and time as texts grow, in bf16
part growth "$python" benchmarks/encoder.py --device cuda --growth --dtype bfloat16

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
echo "all parts ran; their logs are in $out"
