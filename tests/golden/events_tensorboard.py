#!/usr/bin/env python3
"""Reads with TensorBoard what tests/io/write_events.cpp writes: `events_tensorboard.py WRITE_EVENTS`.

Every number must come back, and of a run that goes on only what it has kept. Says "skipped" where Python's package
tensorboard is missing.
"""
import math
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
try:
    from tensorboard import version
    from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
    from tensorboard.util import tensor_util
except ImportError as error:
    print(f"skipped: Python cannot import tensorboard ({error})")
    sys.exit(0)



def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


# The curves as {tag: [(step, wall_time, value)]}.
EXPECTED = {
    "train/loss": [(step, 1e9 + step, float32(1 / (1 + step))) for step in range(900)] +
                  [(step, 2e9 + step, float(step)) for step in range(900, 950)],
    "größe/Ω": [(3, 1e9, -2.5)],
    "odd": [(1, 1e9, "inf"), (2, 1e9, "-inf"), (3, 1e9, "nan")],
    "large": [(1 << 60, 1e9, 16777216.0)],
}


def point(event, value):
    return event.step, event.wall_time, value if math.isfinite(value) else str(value)


def read_plain(folder):
    run = event_accumulator.EventAccumulator(folder, size_guidance={event_accumulator.SCALARS: 0})
    run.Reload()
    return {tag: [point(event, event.value) for event in run.Scalars(tag)] for tag in run.Tags()["scalars"]}


def read_plugin(folder):
    """As the scalars' page gets them."""
    run = plugin_event_accumulator.EventAccumulator(folder, size_guidance={plugin_event_accumulator.TENSORS: 0})
    run.Reload()
    return {tag: [point(event, tensor_util.make_ndarray(event.tensor_proto).item()) for event in run.Tensors(tag)]
            for tag in run.PluginTagToContent("scalars")}


def main():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.argv[1], folder], check=True)
        for read in (read_plain, read_plugin):
            got = read(folder)
            assert got.keys() == EXPECTED.keys(), (read.__name__, got.keys())
            for tag, points in EXPECTED.items():
                assert got[tag] == points, (read.__name__, tag, [pair for pair in zip(got[tag], points) if pair[0] != pair[1]][:3])
    print(f"TensorBoard {version.VERSION} read {sum(map(len, EXPECTED.values()))} points of {len(EXPECTED)} curves")


if __name__ == "__main__":
    main()
