#!/bin/sh
# The table of the bundled model, from 512 of the scenes that it was trained on: sh calibration/conveyor.sh
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}
"$python" samples/conveyor/scenes.py --seed 1 --count 512 --out "$work/scenes"
model=$("$python" -c "import trt_blendmask; print(trt_blendmask.bundled_model())")
"$python" -m trt_blendmask calibrate "$model" --images "$work/scenes/images" -n 512 -o "$work/conveyor.json"
cp "$work/conveyor.json" calibration/conveyor.json
