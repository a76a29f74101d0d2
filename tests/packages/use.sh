#!/usr/bin/env bash
# Uses Lamella as it is installed under a prefix: use.sh PREFIX. A project is built with CMake, a program with
# pkg-config, and lamella-mobilenet trains for an epoch on the digits that come with it.
set -euo pipefail
prefix=$(realpath "$1")
consumers=$(dirname "$(realpath "$0")")/../consumers
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake -S "$consumers/installed" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
grep -q "^lamella_DIR:PATH=$prefix/" "$work/build/CMakeCache.txt" || { echo "another Lamella was found" >&2; exit 1; }
cmake --build "$work/build"
"$work/build/installed_use"

flags=$(PKG_CONFIG_PATH=$prefix/lib/pkgconfig pkg-config --static --cflags --libs lamella)
# shellcheck disable=SC2086 # several words
${CXX:-c++} -std=c++20 -Wall -Werror "$consumers/use.cpp" $flags -o "$work/use"
"$work/use"

"$prefix/bin/lamella-mobilenet" info
"$prefix/bin/lamella-mobilenet" train --data digits --recipe "$prefix/share/lamella/recipes/digits.json" --epochs 1 \
  --width 0.1 --device cpu --checkpoint "$work/net.safetensors"
"$prefix/bin/lamella-mobilenet" eval --checkpoint "$work/net.safetensors" --device cpu
