#!/usr/bin/env python3
"""Weights there and back: files of PyTorch's `safetensors` package read by Lamella, and Lamella's read by PyTorch.

    round_trip_torch.py build/release/tests/models/parity_dump [CHECKPOINT NETWORK ...]

For each MobileNet of torchvision and timm: its state_dict, with running statistics of its own, is saved by the package,
loaded by Lamella, which gives the peer's logits and saves the weights; they come back into the peer with the same bits. A
CHECKPOINT of `lamella-mobilenet train` of a NETWORK is loaded into the peer, strictly.
"""
import subprocess
import sys
import tempfile

import safetensors.torch
import torch
import torch_models as tm

CLASSES, PIXELS, BATCH = 10, 96, 4


def lived_in(model):
    """Statistics and scales that no fresh network has, so that each counts."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "bn1.bias", "bn2.bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 10)
        elif name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(7)
    return model.eval()


def there_and_back(program, name, folder):
    theirs, batch, out, ours = (f"{folder}/{file}.safetensors" for file in ("theirs", "batch", "out", "ours"))
    model = lived_in(tm.build(name, CLASSES, 1.0))
    safetensors.torch.save_file(model.state_dict(), theirs)
    images, labels = tm.formula_batch(0, BATCH, CLASSES, PIXELS)
    safetensors.torch.save_file({"images": images.contiguous(), "labels": labels}, batch)
    with torch.no_grad():
        logits = tm.in_type(model.double(), torch.float64)(images.double())
    subprocess.run([program, name, theirs, batch, out, "float32", "contiguous", "1", "cpu", ours], check=True)
    error = (safetensors.torch.load_file(out)["logits_eval"] - logits).norm() / logits.norm()

    back = tm.build(name, CLASSES, 1.0)
    back.load_state_dict(safetensors.torch.load_file(ours), strict=True)
    original = safetensors.torch.load_file(theirs)
    same = all(torch.equal(tensor, original[key]) for key, tensor in back.state_dict().items())
    good = error < 1e-5 and same
    print(f"{name:18} logits within {error:.1e} of PyTorch's, {len(original)} tensors back "
          f"{'with the same bits' if same else 'CHANGED'}{'' if good else '  BAD'}", flush=True)
    return good


def load_checkpoint(path, name):
    prefix = "network."  # the optimizer's tensors lie beside the network's
    state = {key.removeprefix(prefix): tensor for key, tensor in safetensors.torch.load_file(path).items()
             if key.startswith(prefix)}
    head = [key for key in state if key.startswith("classifier")][-1]
    model = tm.build(name, state[head].shape[0], 1.0)
    stem = next(name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d))
    model.get_submodule(stem).weight = torch.nn.Parameter(torch.empty(state[stem + ".weight"].shape))  # of grey images, too
    mine = model.state_dict()
    fit = [key for key in mine if key in state and mine[key].shape == state[key].shape]
    print(f"{name:18} {path}: {len(fit)} of {len(mine)} tensors fit", flush=True)
    if len(fit) < len(mine):
        return False
    model.load_state_dict({key: state[key] for key in mine}, strict=True)
    return True


def main():
    if len(sys.argv) < 2 or len(sys.argv) % 2 != 0:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        good = [there_and_back(sys.argv[1], name, folder) for name in tm.MODELS]
    good += [load_checkpoint(*pair) for pair in zip(sys.argv[2::2], sys.argv[3::2])]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
