#!/usr/bin/env bash
# The kernel's tests under AddressSanitizer and UndefinedBehaviorSanitizer, on a build of its own in a temporary folder.
# $CC is the compiler (gcc or clang; default gcc), $PYTHON the interpreter; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."
CC=${CC:-gcc}
PYTHON=${PYTHON:-python3}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

flags=(-std=c11 -O1 -g -fPIC -shared -fvisibility=hidden -Wall -Wextra -Wconversion -Wshadow -Werror
  -fno-math-errno -fno-trapping-math -ffp-contract=fast
  -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
if "$CC" --version | grep -q clang; then
  flags+=(-shared-libasan)
  runtime=$("$CC" -print-file-name="libclang_rt.asan-$(uname -m).so")
else
  runtime=$("$CC" -print-file-name=libasan.so)
fi
include=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')
"$CC" "${flags[@]}" -I"$include" drift_edge/kernel/_kernel.c -o "$build/_kernel.abi3.so" -lm

# Python itself keeps memory until it exits, so leaks are not this tool's to find: test_nothing_leaks does.
export DRIFT_EDGE_TEST_KERNEL=$build/_kernel.abi3.so
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export PYTHONMALLOC=malloc
LD_PRELOAD=$runtime "$PYTHON" -m pytest tests/kernel --confcutdir tests/kernel -q -p no:cacheprovider --timeout 3600 "$@"
