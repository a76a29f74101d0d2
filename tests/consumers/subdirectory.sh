#!/bin/sh
# Configures, builds and runs subdirectory/. Arguments: CMake, the folder for the build, and CMake's options.
# `ctest --build-and-test` would do it, too, but sets LC_ALL and LC_MESSAGES, by which ccache tells its objects apart.
set -e
cmake=$1 build=$2
shift 2
"$cmake" -S "$(dirname "$0")/subdirectory" -B "$build" "$@"
"$cmake" --build "$build"
"$build/subdirectory_use"
