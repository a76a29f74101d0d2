#!/usr/bin/env python3
"""KernelBench level 1, numbers 82 to 85: torch.nn.Conv2d against lamella_torch.DepthwiseConv2d, both eager, launches included.

Prints a table, and with --json FILE ('-': standard output) the same as JSON. A time is the median of --repeats, each of one
call between two waits for the GPU. Backward is given dy and makes the gradients of the input, the weight and the bias if any.
"""

import argparse
import json
import statistics
import time

import torch

from lamella_torch import DepthwiseConv2d

# name, input, arguments of torch.nn.Conv2d
PROBLEMS = [
    ("kb82 3x3 square", (16, 64, 512, 512), (64, 64, 3)),
    ("kb83 3x1", (64, 8, 512, 512), (8, 8, (3, 1))),
    ("kb84 3x3", (64, 128, 256, 512), (128, 128, 3)),
    ("kb85 3x7", (32, 128, 128, 256), (128, 128, (3, 7))),
]


def median_ms(call, repeats, wait):
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        wait()
        begin = time.perf_counter()
        call()
        wait()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def measure(kind, shape, arguments, options):
    dtype = getattr(torch, options.dtype)
    layout = getattr(torch, options.format)
    torch.manual_seed(1)
    layer = kind(*arguments, groups=arguments[0], bias=False, device=options.device, dtype=dtype)
    x = torch.randn(shape, device=options.device, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    wait = torch.cuda.synchronize if options.device == "cuda" else lambda: None
    with torch.no_grad():
        dy = torch.randn_like(layer(x))

    def forward():
        with torch.no_grad():
            layer(x)

    def both():
        torch.autograd.grad(layer(x), [x, *layer.parameters()], dy)

    return {
        "forward_ms": median_ms(forward, options.repeats, wait),
        "forward_backward_ms": median_ms(both, options.repeats, wait),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cuda", "cpu"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16", "float64"])
    parser.add_argument("--format", default="contiguous_format", choices=["contiguous_format", "channels_last"])
    parser.add_argument("--repeats", type=int, default=25, help="at least 20 for figures that count")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN measure its choice, as it does not by default")
    parser.add_argument("--divide", type=int, default=1, help="divide batch, height and width, for a try on a CPU")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = options.cudnn_benchmark

    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{device}, PyTorch {torch.__version__}, {options.dtype}, {options.format}, median of {options.repeats}")
    print(f"{'':18}{'forward, ms':^30}{'forward + backward, ms':^30}")
    print(f"{'':18}" + 2 * f"{'PyTorch':>10}{'Lamella':>10}{'ratio':>10}", flush=True)
    rows = []
    for name, (n, c, h, w), arguments in PROBLEMS:
        shape = (max(n // options.divide, 1), c, h // options.divide, w // options.divide)
        row = {"problem": name, "input": shape}
        for key, kind in (("torch", torch.nn.Conv2d), ("lamella", DepthwiseConv2d)):
            row[key] = measure(kind, shape, arguments, options)
            if options.device == "cuda":
                torch.cuda.empty_cache()
        line = f"{name:18}"
        for what in ("forward_ms", "forward_backward_ms"):
            row[what.replace("_ms", "_ratio")] = ratio = row["torch"][what] / row["lamella"][what]
            line += f"{row['torch'][what]:10.3f}{row['lamella'][what]:10.3f}{ratio:9.2f}x"
        print(line, flush=True)
        rows.append(row)
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        text = json.dumps({"device_name": device, "torch": torch.__version__, **settings, "rows": rows}, indent=1)
        if options.json == "-":
            print(text)
        else:
            with open(options.json, "w", encoding="utf-8") as file:
                file.write(text + "\n")


if __name__ == "__main__":
    main()
