#!/usr/bin/env python3
"""Runs clang-tidy over the project: tidy.py BUILD_DIR [words of paths]. What was clean stays clean until the file,
its headers, its flags or .clang-tidy change: a hash of the preprocessed source and of the rest is kept in BUILD_DIR/tidy.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys

TIDY = "clang-tidy-14"


def without_precompiled_headers(command):
    """GCC's are nothing to clang, and a file must include what it needs."""
    words = [word for word in shlex.split(command) if word not in ("-Winvalid-pch", "-fpch-preprocess")]
    for at in [i for i, word in enumerate(words) if word.endswith("cmake_pch.hxx")]:
        words[at - 1] = words[at] = None
    return shlex.join(word for word in words if word is not None)


def compiler_arguments(entry):
    """The compile command without its launcher, its output and its -c."""
    words = shlex.split(entry["command"])
    if pathlib.Path(words[0]).name == "ccache":
        words = words[1:]
    output = words.index("-o")
    return [word for word in words[:output] + words[output + 2 :] if word != "-c"]


def check(entry, kept):
    """Returns what clang-tidy says of one file, or an empty string."""
    words = compiler_arguments(entry)
    source = subprocess.run(words + ["-E", "-P"], cwd=entry["directory"], capture_output=True, check=False)
    if source.returncode:
        return source.stderr.decode(errors="replace")
    digest = hashlib.sha256(source.stdout + " ".join(words).encode() + pathlib.Path(".clang-tidy").read_bytes())
    mark = kept / digest.hexdigest()
    if mark.exists():
        return ""
    # GCC's warnings are the build's business; clang has other flags for them.
    flags = ["--extra-arg=-Wno-unknown-warning-option", "--quiet"]
    run = subprocess.run(
        [TIDY, "-p", str(kept), *flags, entry["file"]], capture_output=True, text=True, check=False
    )
    if run.returncode == 0:
        mark.touch()
        return ""
    return run.stdout or run.stderr


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    kept = build / "tidy"
    kept.mkdir(exist_ok=True)
    commands = json.loads((build / "compile_commands.json").read_text())
    for entry in commands:
        entry["command"] = without_precompiled_headers(entry["command"])
    (kept / "compile_commands.json").write_text(json.dumps(commands))
    files = {entry["file"]: entry for entry in commands if not entry["file"].startswith(f"{build}{os.sep}")}
    wanted = [e for f, e in sorted(files.items()) if all(word in f for word in sys.argv[2:])]
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, said in enumerate(pool.map(lambda e: check(e, kept), wanted), 1):
            if said:
                bad += 1
                print(said, flush=True)
            if sys.stderr.isatty():
                print(f"\r{done}/{len(wanted)} files", end="", file=sys.stderr, flush=True)
    print(f"clang-tidy: {len(wanted)} files, {bad} with findings")
    return 1 if bad or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
