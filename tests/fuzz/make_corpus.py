#!/usr/bin/env python3
"""Makes the files that fuzzing begins with, in corpus/: small, and together with every part of each format.
corpus/*/found-* are what fuzzing found, and stay."""

import gzip
import json
import pathlib
import struct
import zlib

CORPUS = pathlib.Path(__file__).parent / "corpus"


def put(target, name, content):
    path = CORPUS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def crc32c(content):
    rest = 0xFFFFFFFF
    for byte in content:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ (0x82F63B78 if rest & 1 else 0)
    return rest ^ 0xFFFFFFFF


def safetensors():
    def write(name, header, data=b"", checksum=False):
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        whole = struct.pack("<Q", len(text)) + text + data
        if checksum:
            whole = whole.replace(b'crc32c":"00000000', b'crc32c":"%08x' % crc32c(whole))
        put("safetensors", name, whole)

    def entry(dtype, shape, begin, end):
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    write("empty", {})
    write("types", {t: entry(t, [1], i, i + 1) for i, t in enumerate(["U8", "BOOL"])}, b"\x07\x02")
    write(
        "wide",
        {"d": entry("F64", [1], 0, 8), "i": entry("I64", [], 8, 16), "h": entry("BF16", [2, 1], 16, 20),
         "none": entry("F32", [0, 3], 20, 20)},
        bytes(range(20)),
    )
    write("impossible", {"none": entry("F32", [0, 2**62, 4], 0, 0)})
    put("safetensors", "behind-zero", struct.pack("<Q", 9) + b'{}\x00{"a":1')
    metadata = {"format": "pt", "ä\n": "\\\"", "lamella.crc32c": "00000000"}
    write("checksum", {"__metadata__": metadata, "w": entry("F16", [1], 0, 2)}, b"\x00\x3c", checksum=True)


def npy():
    def write(name, header, data=b"", version=(1, 0)):
        text = header.encode() + b"\n"
        size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
        put("npy", name, b"\x93NUMPY" + bytes(version) + size + text + data)

    write("f4", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", bytes(8))
    write("big", "{'descr': '>i8', 'fortran_order': True, 'shape': (2, 1), }", bytes(range(16)))
    write("bool", "{'descr': '|b1', 'fortran_order': False, 'shape': (), }", b"\x05", (2, 0))
    write("text", "{'descr': '<U1', 'fortran_order': False, 'shape': (0, 4)}", b"", (3, 0))
    write("records", "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", bytes(4))


def idx():
    def content(kind, sizes, data):
        return bytes([0, 0, kind, len(sizes)]) + b"".join(struct.pack(">I", size) for size in sizes) + data

    put("idx", "images", content(8, [2, 2, 3], bytes(range(12))))
    put("idx", "labels", content(8, [3], b"\x00\x01\x02"))
    put("idx", "short", content(11, [2], b"\xff\xfe\x01\x00"))
    put("idx", "double", content(14, [1, 1], struct.pack(">d", 1.5)))
    put("idx", "gzipped", gzip.compress(content(13, [2], bytes(8)), mtime=0))
    put("idx", "impossible", content(12, [0, 2**32 - 1, 2**32 - 1], b""))


def cifar():
    record = bytes([9]) + bytes(3072)
    put("cifar", "one", record)
    put("cifar", "cut", record[:300])
    put("cifar", "label", bytes([10]) + bytes(3072))


def segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg():
    """Grey, or with colour at half the size, all coefficients zero: each block is the codes 0 (no change of the mean) and
    0 (the end of the block)."""
    start, end = b"\xff\xd8", b"\xff\xd9"
    quantization = segment(0xDB, bytes([0]) + bytes([1] * 64))

    def table(kind, symbols):  # two codes of two bits at most
        return segment(0xC4, bytes([kind, 0, len(symbols)] + [0] * 14) + bytes(symbols))

    tables = table(0x00, [0, 1]) + table(0x10, [0, 1])

    def frame(marker, height, width, components):
        body = bytes([8]) + struct.pack(">HH", height, width) + bytes([len(components)])
        return segment(marker, body + b"".join(bytes([i + 1, s, 0]) for i, s in enumerate(components)))

    def scan(components, first, last, bits, data):
        body = bytes([len(components)]) + b"".join(bytes([c, 0]) for c in components)
        return segment(0xDA, body + bytes([first, last, bits])) + data

    grey = quantization + tables
    put("jpeg", "grey", start + grey + frame(0xC0, 8, 8, [0x11]) + scan([1], 0, 63, 0, b"\x0f") + end)
    color = frame(0xC0, 16, 16, [0x22, 0x11, 0x11])
    put("jpeg", "color", start + grey + color + scan([1, 2, 3], 0, 63, 0, bytes(3)) + end)
    comment = segment(0xFE, b"text") + segment(0xE1, b"Exif\0\0MM\0*")
    restart = segment(0xDD, struct.pack(">H", 1))
    put("jpeg", "restarts", start + comment + grey + frame(0xC1, 8, 16, [0x11]) + restart
        + scan([1], 0, 63, 0, b"\x0f\xff\xd0\x0f") + end)
    progressive = scan([1], 0, 0, 0x01, b"\x3f") + scan([1], 1, 63, 0x00, b"\x3f") + scan([1], 0, 0, 0x10, b"\x7f")
    put("jpeg", "progressive", start + grey + frame(0xC2, 8, 8, [0x11]) + progressive + end)
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\x02")
    inks = frame(0xC0, 8, 8, [0x11] * 4)
    put("jpeg", "inks", start + adobe + grey + inks + scan([1, 2, 3, 4], 0, 63, 0, b"\0") + end)


def png():
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def write(name, height, width, depth, kind, rows, interlaced=0, extra=b""):
        header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
        data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        put("png", name, b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data)

    write("grey", 2, 3, 8, 0, b"\0\1\2\3\1\4\5\6")
    write("bits", 2, 9, 1, 0, b"\0\xaa\x80\2\xff\x00")
    write("color16", 1, 2, 16, 2, b"\4" + bytes(range(12)), extra=chunk(b"gAMA", struct.pack(">I", 45455)))
    palette = chunk(b"PLTE", bytes(range(9))) + chunk(b"tRNS", b"\x00\x80")
    write("palette", 2, 2, 4, 3, b"\0\x01\3\x20", extra=palette + chunk(b"tEXt", b"Title\0text"))
    write("alpha", 1, 1, 8, 6, b"\0\1\2\3\4")
    write("interlaced", 2, 2, 8, 4, b"\0\1\2" + b"\0\3\4" + b"\0\5\6\7\x08", interlaced=1)


def recipe():
    put("recipe", "empty", "{}")
    put("recipe", "network", '{"model": "v3-small", "width": 0.5, "stem": "imagenet", "dropout": 0, "freeze": ["a*", "b"]}')
    put("recipe", "steps", '{"epochs": 3, "batch": 32, "optimizer": "adamw", "lr": 1e-3, "schedule": "one-cycle",'
        ' "ema": 0.99, "flip": false, "seed": 18446744073709551615}')
    put("recipe", "wrong", '{"epochs": 2.5, "lr": "fast", "none": null}')


def options_file():
    put("options_file", "flat", 'data = "digits"\nkeep = 3\nlr = 0.05\nflip = false\n')
    put("options_file", "sections", "# a comment\n[train]\ndata = 'a # b'\nresume = true\n[predict]\nimages = [\"x.png\", 'y']\n")
    put("options_file", "lists", '[train]\nfreeze = ["features.*", "a\\"b", "c\\\\d"]\nmodel = "v1"\n')
    put("options_file", "ini", "train.data=digits\ntrain.keep=2\n; a comment\nepochs=4\n")


for make in [safetensors, npy, idx, cifar, jpeg, png, recipe, options_file]:
    make()
