#!/usr/bin/env python3
"""Makes digits-images-idx3-ubyte.gz and digits-labels-idx1-ubyte.gz beside this script.

usage: make_digits.py optdigits.tes

The input is the test set of the UCI "Optical Recognition of Handwritten Digits" data, plain or gzipped: a line for each
image, its 64 pixels (0 to 16) row by row and then its label, separated by commas. The same input and zlib give the same bytes.
"""

import gzip
import pathlib
import struct
import sys

SIDE = 8
LEVELS = 17
CLASSES = 10


def read_rows(path):
    data = pathlib.Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    rows = [[int(field) for field in line.split(",")] for line in data.decode("ascii").split()]
    for number, row in enumerate(rows, 1):
        *pixels, label = row
        if len(pixels) != SIDE * SIDE or not all(0 <= p < LEVELS for p in pixels) or not 0 <= label < CLASSES:
            sys.exit(f"{path}: line {number} is not {SIDE * SIDE} pixels of 0 to {LEVELS - 1} and a label of 0 to {CLASSES - 1}")
    return rows


def write_idx(path, sizes, values):
    unsigned_bytes = 0x08
    header = struct.pack(f">BBBB{len(sizes)}I", 0, 0, unsigned_bytes, len(sizes), *sizes)
    path.write_bytes(gzip.compress(header + bytes(values), 9, mtime=0))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    rows = read_rows(sys.argv[1])
    here = pathlib.Path(__file__).resolve().parent
    pixels = [pixel for row in rows for pixel in row[:-1]]
    write_idx(here / "digits-images-idx3-ubyte.gz", (len(rows), SIDE, SIDE), pixels)
    write_idx(here / "digits-labels-idx1-ubyte.gz", (len(rows),), [row[-1] for row in rows])
    print(f"{len(rows)} images")


if __name__ == "__main__":
    main()
