#!/usr/bin/env python3
"""The full-size MobileNets of Lamella and of torchvision and timm side by side: `parity_torch.py PARITY_DUMP [NETWORK...]`.

Same weights, same batch, on the CPU or with `--device cuda` on the GPU. Float64: every number within 1e-9 of PyTorch's, relative to its tensor's norm. Float32
and bfloat16: how far each gradient and the logits are from PyTorch's float64, compared with how far PyTorch itself is in
that type and memory format; at most twice as far. One activation that falls on the other side of a kink than in float64
moves a channel's gradients a thousand times more than all rounding together, in PyTorch and here, in one batch or the next
by chance. So a tensor counts as too far only if it is so over several batches both by the median and by the batch in which
each side was disturbed least. Ends with status 1 where a bound is broken.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch

sys.dont_write_bytecode = True
import torch_models as tm  # noqa: E402

SGD = dict(lr=0.001, momentum=0.9, weight_decay=4e-5)


def peer(name, state, images, labels, dtype, channels_last, steps, classes, device):
    model = tm.in_type(tm.build(name, classes, 1.0), dtype).to(device)
    images, labels = images.to(device), labels.to(device)
    model.load_state_dict(state)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model, images = model.to(memory_format=layout), images.to(dtype).contiguous(memory_format=layout)
    with torch.no_grad():
        out = {"logits_eval": model.eval()(images).double()}
    model.train()
    sgd, losses = torch.optim.SGD(model.parameters(), **SGD), []
    for step in range(steps):
        sgd.zero_grad()
        logits = model(images)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            out["logits_train"] = logits.detach().double()
            out.update({"gradient." + n: p.grad.detach().double().clone() for n, p in model.named_parameters()})
        sgd.step()
    out["losses"] = torch.tensor(losses, dtype=torch.float64)
    return {n: t.cpu() for n, t in out.items()}


def distances(a, b, floor):
    """‖a − b‖ / ‖b‖ for each tensor; a norm below `floor` counts as that: some gradients are zero but for rounding."""
    return {n: ((a[n] - b[n]).norm() / max(b[n].norm(), floor)).item() for n in b if n != "losses"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parity_dump")
    parser.add_argument("networks", nargs="*", default=list(tm.MODELS), metavar="NETWORK")
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batches", type=int, help="for float32 (7, on a GPU 21); bfloat16 takes three of them")
    args = parser.parse_intermixed_args()
    args.batches = args.batches or (21 if args.device == "cuda" else 7)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in args.networks:
            failures += compare(name, args, folder)
    sys.exit(failures > 0)


def compare(name, args, folder):
    def path(file):
        return os.path.join(folder, file)

    def ours(dtype, layout, seed, steps):
        subprocess.run([args.parity_dump, name, path("weights"), path(f"batch{seed}"), path("out"), dtype, layout,
                        str(steps), args.device], check=True)
        return tm.load_safetensors(path("out"))

    torch.manual_seed(0)
    state = {n: t.double() if t.is_floating_point() else t
             for n, t in tm.build(name, args.classes, 1.0).state_dict().items()}
    tm.save_safetensors(path("weights"), state)
    batches = [tm.formula_batch(seed, args.batch, args.classes, args.pixels) for seed in range(args.batches)]
    for seed, (images, labels) in enumerate(batches):
        tm.save_safetensors(path(f"batch{seed}"), {"images": images, "labels": labels})
    exact = [peer(name, state, *batch, torch.float64, False, 10 if i == 0 else 1, args.classes, args.device)
             for i, batch in enumerate(batches)]
    floor = 1e-5 * max(t.norm().item() for n, t in exact[0].items() if n.startswith("gradient."))
    failures = 0
    for layout in ("contiguous", "channels_last"):
        got = ours("float64", layout, 0, 10)
        assert got.keys() == exact[0].keys(), exact[0].keys() ^ got.keys()
        worst = distances(got, exact[0], floor)
        tensor = max(worst, key=worst.get)
        loss = ((got["losses"] - exact[0]["losses"]).abs() / exact[0]["losses"]).max().item()
        bad = not (worst[tensor] <= 1e-9 and loss <= 1e-9)
        print(f"{name:18} {layout:13} float64   worst tensor {worst[tensor]:.1e} ({tensor}), ten losses {loss:.1e}"
              f"{'  ABOVE 1e-9' if bad else ''}", flush=True)
        failures += bad
        for dtype in ("float32", "bfloat16"):
            mine, theirs = [], []
            # In bfloat16, where PyTorch is slow, so much is rounded that batches hardly differ.
            for seed, batch in enumerate(batches if dtype == "float32" else batches[:3]):
                mine.append(distances(ours(dtype, layout, seed, 1), exact[seed], 0))
                theirs.append(distances(peer(name, state, *batch, getattr(torch, dtype), layout == "channels_last", 1,
                                             args.classes, args.device), exact[seed], 0))
            least, median = ({n: [take([e[n] for e in side]) for side in (mine, theirs)] for n in mine[0]}
                             for take in (np.min, np.median))
            ratio = {n: a / b for n, (a, b) in least.items()}
            tensor = max(ratio, key=ratio.get)
            far = [{n for n, (a, b) in side.items() if not a / b <= 2} for side in (least, median)]
            above = len(far[0] & far[1])
            print(f"{name:18} {layout:13} {dtype:9} error / PyTorch's: median {np.median(list(ratio.values())):.2f}, worst "
                  f"{ratio[tensor]:.2f} ({tensor}), above 2: {above} of {len(ratio)} (by the least {len(far[0])}, by the median {len(far[1])}); PyTorch's "
                  f"error {np.median([b for _, b in least.values()]):.1e}", flush=True)
            failures += above > 0
    return failures


if __name__ == "__main__":
    main()
