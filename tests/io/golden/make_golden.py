#!/usr/bin/env python3
"""Makes the .npy files of this folder with NumPy (pip install numpy)."""

import pathlib

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent


def main():
    counting = np.arange(24).reshape(2, 3, 4)
    for code in ("b1", "u1", "i4", "i8", "f2", "f4", "f8"):
        np.save(HERE / f"{code}.npy", (counting % 2 == 1) if code == "b1" else counting.astype(code))
    np.save(HERE / "fortran.npy", np.asfortranarray(counting.astype("f4") / 4))
    np.save(HERE / "big_endian.npy", counting.astype(">i4") - 5)
    np.save(HERE / "big_endian_half.npy", (counting.astype("f2") / 8).astype(">f2"))
    np.save(HERE / "scalar.npy", np.float64(2.5))
    np.save(HERE / "empty.npy", np.zeros((0, 3), dtype="f4"))
    np.save(HERE / "complex.npy", np.zeros(3, dtype="c8"))
    np.save(HERE / "records.npy", np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]))
    with open(HERE / "version2.npy", "wb") as file:
        np.lib.format.write_array(file, counting.astype("f4"), version=(2, 0))


if __name__ == "__main__":
    main()
