#!/usr/bin/env python3
"""Draws training curves as one SVG file that needs nothing else: test accuracy and training loss over epochs.

    plot_curves.py --out cifar10.svg --series Lamella ours-*.csv --series PyTorch theirs-*.csv

The files of a series are runs with different seeds, as `lamella-mobilenet train --csv` and torch_cifar10.py write them. The
line is their mean, the band reaches from the smallest to the largest. Prints each series' last epoch.
"""
import argparse
import csv
import math
import statistics
import sys
from html import escape

PANEL, HEIGHT, LEFT, TOP, GAP = 340, 260, 62, 62, 74  # pixels of a panel and around it
WIDTH, WHOLE = LEFT + 2 * PANEL + GAP + 20, TOP + HEIGHT + 52
# Text and axes, background, grid, then one colour a series.
LIGHT = ("#24292f", "#ffffff", "#d8dee4", "#1f6fb5", "#c8590a", "#2c8a4b", "#8a4fb0")
DARK = ("#e6edf3", "#0d1117", "#30363d", "#6db5f5", "#ffa057", "#6fcf8f", "#c79be8")


def read_run(path):
    """{epoch: (train_loss, accuracy in percent, seconds)}"""
    try:
        with open(path, newline="") as file:
            run = {int(row["epoch"]): (float(row["train_loss"]), 100 * float(row["test_accuracy"]), float(row["seconds"]))
                   for row in csv.DictReader(file)}
    except (KeyError, TypeError, ValueError) as error:
        sys.exit(f"error: {path} is no curve of a training: {error!r}")
    if not run or not all(math.isfinite(value) for values in run.values() for value in values):
        sys.exit(f"error: {path} holds no epoch, or a number that is not finite")
    return run


def curve(runs, column):
    """[(epoch, mean, smallest, largest)] of the epochs that every run has."""
    points = []
    for epoch in sorted(set.intersection(*(set(run) for run in runs))):
        values = [run[epoch][column] for run in runs]
        points.append((epoch, statistics.fmean(values), min(values), max(values)))
    return points


def ticks(low, high, count):
    """Round numbers from just below `low` to just above `high`."""
    rough = max(high - low, 1e-9) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * k for k in range(first, max(last, first + 1) + 1)]


def panel(left, name, label, curves, first):
    """A pair of axes with every series. The vertical one fits the epochs behind `first`; what is outside is cut."""
    seen = [value for points in curves for epoch, _, low, high in points if epoch > first for value in (low, high)]
    epochs = [epoch for points in curves for epoch, *_ in points]
    down, up = ticks(min(seen), max(seen), 6), ticks(min(epochs), max(epochs), 6)
    begin, end = min(epochs), max(max(epochs), min(epochs) + 1)
    across = [t for t in up if begin <= t <= end and t == int(t)]

    def x(epoch):
        return left + PANEL * (epoch - begin) / (end - begin)

    def y(value):
        return TOP + HEIGHT * (1 - (value - down[0]) / (down[-1] - down[0]))

    digits = max(0, -math.floor(math.log10(down[1] - down[0]) + 1e-9))
    out = [f'<text class="name" x="{left}" y="{TOP - 12}">{name}</text>',
           f'<clipPath id="{label}"><rect x="{left}" y="{TOP}" width="{PANEL}" height="{HEIGHT}"/></clipPath>']
    for value in down:
        out.append(f'<path class="grid" d="M{left} {y(value):.1f}h{PANEL}"/>'
                   f'<text class="tick" x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.{digits}f}</text>')
    for epoch in across:
        out.append(f'<path class="axis" d="M{x(epoch):.1f} {TOP + HEIGHT}v5"/>'
                   f'<text class="tick" x="{x(epoch):.1f}" y="{TOP + HEIGHT + 19}" text-anchor="middle">{epoch:.0f}</text>')
    out.append(f'<path class="axis" d="M{left} {TOP}v{HEIGHT}h{PANEL}"/>'
               f'<text class="tick" x="{left + PANEL / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle">epoch</text>'
               f'<g clip-path="url(#{label})">')
    for i, points in enumerate(curves):
        upper = [f"{x(e):.1f} {y(high):.1f}" for e, _, _, high in points]
        lower = [f"{x(e):.1f} {y(low):.1f}" for e, _, low, _ in reversed(points)]
        out.append(f'<path class="band s{i}" d="M{"L".join(upper + lower)}Z"/>')
    for i, points in enumerate(curves):
        out.append(f'<path class="line s{i}" d="M{"L".join(f"{x(e):.1f} {y(mean):.1f}" for e, mean, *_ in points)}"/>')
    return out + ["</g>"]


def style():
    def theme(ink, paper, faint, *series):
        return (f"text{{fill:{ink}}}.axis{{stroke:{ink}}}.paper{{fill:{paper}}}.grid{{stroke:{faint}}}" +
                "".join(f".band.s{i}{{fill:{c}}}.line.s{i}{{stroke:{c}}}" for i, c in enumerate(series)))

    return ("<style>text{font:12px system-ui,sans-serif}.name{font-weight:600;font-size:13px}.axis{fill:none}"
            ".band{fill-opacity:.22}.line{stroke-width:2;fill:none;stroke-linejoin:round}.s1.line{stroke-dasharray:7 3}" +
            theme(*LIGHT) + "@media(prefers-color-scheme:dark){" + theme(*DARK) + "}</style>")


def draw(title, series):
    """The SVG's text. `series`: [(name, runs)]."""
    accuracy, loss = ([curve(runs, column) for _, runs in series] for column in (1, 0))
    longest = max(points[-1][0] for points in accuracy)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {WHOLE}" width="{WIDTH}" height="{WHOLE}" role="img">',
           f"<title>{escape(title)}</title>", style(), f'<rect class="paper" width="{WIDTH}" height="{WHOLE}"/>']
    at = LEFT
    for i, (name, runs) in enumerate(series):
        text = f"{name}: {accuracy[i][-1][1]:.2f} % after epoch {accuracy[i][-1][0]}, mean of {len(runs)}"
        out.append(f'<path class="line s{i}" d="M{at} 22h26"/><text x="{at + 32}" y="26">{escape(text)}</text>')
        at += 60 + 6.6 * len(text)
    # The first epochs, far below the others, would take most of the height.
    out += panel(LEFT, "test accuracy, %", "accuracy", accuracy, longest // 6)
    out += panel(LEFT + PANEL + GAP, "training loss", "loss", loss, longest // 12)
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the SVG file")
    parser.add_argument("--title", default="Training on CIFAR-10", help="for those who cannot see it")
    parser.add_argument("--series", nargs="+", action="append", required=True, metavar=("NAME", "CSV"))
    args = parser.parse_args()
    series = []
    for name, *paths in args.series:
        if not paths:
            sys.exit(f"error: --series {name} has no files")
        series.append((name, [read_run(path) for path in paths]))
        if not curve(series[-1][1], 0):
            sys.exit(f"error: the runs of {name} have no epoch in common")
    if len(series) > len(LIGHT) - 3:
        sys.exit(f"error: at most {len(LIGHT) - 3} series")
    for name, runs in series:
        epoch = curve(runs, 0)[-1][0]
        last = [run[epoch][1] for run in runs]
        spread = f" ± {statistics.stdev(last):.2f}" if len(last) > 1 else ""
        seconds = statistics.median(row[2] for run in runs for row in run.values())
        print(f"{name}: {statistics.fmean(last):.2f}{spread} % after epoch {epoch} ({len(runs)} runs, {min(last):.2f} to "
              f"{max(last):.2f}), {seconds:.2f} s an epoch (median)")
    with open(args.out, "w") as file:
        file.write(draw(args.title, series))


if __name__ == "__main__":
    main()
