#!/usr/bin/env bash
# Builds the package into dist, installs the wheel into an empty environment, and runs README's Python lines and the
# command line there, far from the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD"
python="${PYTHON:-python3}"

rm -rf dist build/wheel
"$python" -m pip install --quiet --disable-pip-version-check -c constraints.txt build
"$python" -m build --outdir dist . >/dev/null
"$python" -m venv build/wheel
install="build/wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt"
$install torch
$install "$(echo dist/*.whl)[cli,diffusers]"

elsewhere="$(mktemp -d)"
trap 'rm -rf "$elsewhere"' EXIT
cd "$elsewhere"
bin="$root/build/wheel/bin"
"$bin/python" "$root/scripts/run_snippets.py" "$root/README.md"
"$bin/fewstep" --help >/dev/null
"$bin/fewstep" sample --steps 4 --num 2 --out samples.png >said 2>&1
test -s samples.png
# On a slow machine lines of progress come too, one every ten seconds.
[ "$(grep -vc '^sampling' said)" = 1 ] || { echo "fewstep sample says more than its one line:"; cat said; exit 1; }
echo "The wheel of dist works in an empty environment."
