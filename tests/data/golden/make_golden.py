#!/usr/bin/env python3
"""Makes the images of this folder with Pillow (pip install pillow numpy): what other programs' decoders and resizing say."""

import pathlib

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent


def main():
    y, x = np.mgrid[0:47, 0:61].astype(np.float64)
    waves = [np.sin(0.13 * x + 0.21 * y), np.sin(0.05 * x * y / 10), np.cos(0.4 * x) * np.cos(0.3 * y)]
    rgb = np.clip(128 + 110 * np.stack(waves, -1), 0, 255).astype(np.uint8)
    rgb[20:23, 10:50] = (255, 0, 40)
    picture = Image.fromarray(rgb)

    picture.save(HERE / "photo.jpg", quality=90)
    Image.open(HERE / "photo.jpg").convert("RGB").save(HERE / "photo_jpg.png", optimize=True)
    picture.save(HERE / "progressive.jpg", quality=80, progressive=True, subsampling=0)
    Image.open(HERE / "progressive.jpg").convert("RGB").save(HERE / "progressive_jpg.png", optimize=True)
    picture.convert("CMYK").save(HERE / "cmyk.jpg", quality=95)
    Image.open(HERE / "cmyk.jpg").convert("RGB").save(HERE / "cmyk_jpg.png", optimize=True)

    picture.save(HERE / "photo.png", optimize=True)
    for height, width in ((24, 24), (80, 100), (13, 90), (47, 20), (1, 1)):
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        resized.save(HERE / f"resized_{height}x{width}.png", optimize=True)


if __name__ == "__main__":
    main()
