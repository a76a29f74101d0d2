#!/usr/bin/env python3
"""Kills a training at random moments and lets it go on: at the end there must be the bits of one that nobody killed,
and its curve but for the times.

    kill_and_resume.py build/release/examples/mobilenet/lamella-mobilenet --times 200 --seed 7

Each time the program dies by SIGKILL, or, one time in four, is asked to end as by Ctrl-C. Whatever stands under the
checkpoint's name then must be whole: it is tested, and the training goes on from it. Checkpoints are written after
every step or two, and half of the kills wait until one is being written.
"""

import argparse
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

KEPT = 3


def options_of_training(folder):
    """Two seconds of training with everything that a checkpoint must bring back: average, momentum, schedule, the
    scale of a loss in float16, random numbers for images, dropout and mixup, and an epoch's figures so far. Each step
    is made of two batches."""
    return [
        "train", "--data", "digits", "--checkpoint", folder / "net.safetensors", "--csv", folder / "curve.csv",
        "--width", "0.1", "--stem", "imagenet", "--batch", "32", "--accumulate", "2", "--epochs", "2", "--lr", "0.02", "--schedule", "one-cycle", "--ema", "0.95", "--dropout", "0.2",
        "--drop-path", "0.1", "--mixup", "0.2", "--flip", "0", "--crop-padding", "1", "--precision", "float16",
        "--device", "cpu", "--threads", "1", "--workers", "1",
    ]


def figures(folder):
    """The lines of the curve, without the times."""
    lines = [line.split(",") for line in (folder / "curve.csv").read_text().splitlines()]
    return [line[:3] + line[4:] for line in lines]


def half_written(folder):
    return any(".tmp-" in name for name in os.listdir(folder))


class Trial:
    def __init__(self, program, seed, say):
        self.program = program
        self.random = random.Random(seed)
        self.say = say
        self.kills = self.interrupts = self.in_the_middle = self.trainings = 0

    def run(self, arguments, seconds=None, by=signal.SIGKILL, writing_in=None):
        """Its status and what it printed; ended by the signal after so many seconds, where it has not ended by then,
        and as soon as a file is being written in a folder, if there is one to look at."""
        command = [str(argument) for argument in [self.program, *arguments]]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            text, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            deadline = time.monotonic() + 1
            while writing_in and process.poll() is None and time.monotonic() < deadline:
                if half_written(writing_in):
                    break
            process.send_signal(by)
            text, _ = process.communicate(timeout=120)
        return process.returncode, text

    def must(self, arguments):
        status, text = self.run(arguments)
        if status != 0:
            raise SystemExit(f"{' '.join(map(str, arguments))}\nended with status {status}:\n{text}")

    def train_with_kills(self, folder, kills, longest):
        """One training, killed at most so many times. Returns how many of them were left over."""
        self.trainings += 1
        start = options_of_training(folder)
        extras = ["--checkpoint-every", self.random.choice([1, 2]), "--keep", KEPT, "--keep-best"]
        net = folder / "net.safetensors"
        on = ["train", "--resume", "--checkpoint", net, "--csv", folder / "curve.csv", "--device", "cpu", "--threads", "1", "--workers", "1"]
        while kills > 0:
            gentle = self.random.random() < 0.25
            arguments = (on if net.exists() else start) + extras
            seconds = self.random.uniform(0, longest)
            writing_in = folder if self.random.random() < 0.5 else None
            status, text = self.run(arguments, seconds, signal.SIGINT if gentle else signal.SIGKILL, writing_in)
            if status == 0:
                break
            # A signal that comes before the program has asked for it ends it as any other.
            if status not in ([130, -signal.SIGINT] if gentle else [-signal.SIGKILL]):
                raise SystemExit(f"ended with status {status} after {seconds:.3f} s:\n{text}")
            kills -= 1
            self.interrupts += gentle
            self.kills += not gentle
            self.in_the_middle += half_written(folder)
            if net.exists():
                self.must(["eval", "--checkpoint", net, "--device", "cpu", "--threads", "1", "--workers", "1"])
        self.must((on if net.exists() else start) + extras)
        return kills

    def check(self, folder, expected, curve):
        if (folder / "net.safetensors").read_bytes() != expected:
            raise SystemExit(f"training {self.trainings}: the weights differ from those of a run that nobody killed")
        if figures(folder) != curve:
            raise SystemExit(f"training {self.trainings}: its curve is {figures(folder)}, should be {curve}")
        # Nothing is left of what was half-written, and what is kept is whole.
        older = [f"net.{i}.safetensors" for i in range(1, KEPT)]
        allowed = {"curve.csv", "net.safetensors", "net.safetensors.toml", "net.best.safetensors", *older}
        strange = [name for name in sorted(os.listdir(folder)) if name not in allowed]
        if strange:
            raise SystemExit(f"training {self.trainings}: left {', '.join(strange)}")
        for name in [older[0], "net.best.safetensors"]:
            self.must(["eval", "--checkpoint", folder / name, "--device", "cpu", "--threads", "1"])

    def __call__(self, times):
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="lamella-kill-") as place:
            whole = pathlib.Path(place) / "whole"
            whole.mkdir()
            self.must(options_of_training(whole))
            expected, curve = (whole / "net.safetensors").read_bytes(), figures(whole)
            seconds = time.monotonic() - begin
            self.say(f"a run that nobody kills takes {seconds:.1f} s")
            left = times
            while left > 0:
                folder = pathlib.Path(place) / f"killed-{self.trainings}"
                folder.mkdir()
                left = self.train_with_kills(folder, left, seconds)
                self.check(folder, expected, curve)
                self.say(f"training {self.trainings}: same bits; {times - left} of {times} ended early")
        print(
            f"{self.kills} kills ({self.in_the_middle} of them while a file was written) and {self.interrupts} interrupts of "
            f"{self.trainings} trainings: always the same bits, in {time.monotonic() - begin:.0f} s"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path, help="lamella-mobilenet")
    parser.add_argument("--times", type=int, default=10, help="how often a training is ended (default: 10)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    Trial(arguments.program.resolve(), arguments.seed, lambda text: print(text, flush=True))(arguments.times)


if __name__ == "__main__":
    sys.exit(main())
