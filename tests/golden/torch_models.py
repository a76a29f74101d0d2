"""The peers' MobileNets, numbers that both sides compute from a formula, and safetensors files without a package.

Needs PyTorch and torchvision, and timm for MobileNetV1: `pip install --no-deps --target DIR timm`, then PYTHONPATH=DIR.
"""
import json
import struct

import numpy as np
import torch
import torchvision

MODELS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")


def build(name, classes, width):
    """The peer's model without dropout, in training mode."""
    if name == "mobilenet_v1":
        from timm.models import efficientnet

        # mobilenetv1_100 is this builder with multiplier 1.
        return efficientnet._gen_mobilenet_v1("mobilenetv1_100", width, num_classes=classes)
    if name == "mobilenet_v2":
        return torchvision.models.mobilenet_v2(num_classes=classes, width_mult=width, dropout=0.0)
    from torchvision.models import mobilenetv3

    rows, last = mobilenetv3._mobilenet_v3_conf(name, width_mult=width)
    return mobilenetv3.MobileNetV3(rows, last, num_classes=classes, dropout=0.0)


class ExactHardsigmoid(torch.nn.Module):
    """PyTorch's own multiplies its gradient by 1/6 rounded to float32, in float64 too: an error of 3e-8."""

    def forward(self, x):
        return torch.nn.functional.relu6(x + 3) / 6


class ExactHardswish(torch.nn.Module):
    """PyTorch's own does the same on a GPU."""

    def forward(self, x):
        return x * torch.nn.functional.relu6(x + 3) / 6


class ClampReLU6(torch.nn.Module):
    """PyTorch 1.13 cannot differentiate ReLU6 in bfloat16 on the CPU."""

    def forward(self, x):
        return x.clamp(0, 6)


def in_type(model, dtype):
    """The model in `dtype`, with what PyTorch cannot do in that type done in another way."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if dtype == torch.float64 and isinstance(child, torch.nn.Hardsigmoid):
                setattr(module, name, ExactHardsigmoid())
            if dtype == torch.float64 and isinstance(child, torch.nn.Hardswish):
                setattr(module, name, ExactHardswish())
            if dtype == torch.bfloat16 and isinstance(child, torch.nn.ReLU6):
                setattr(module, name, ClampReLU6())
    return model.to(dtype)


def uniform(stream, count):
    """`count` numbers in [0, 1): the upper 53 bits of splitmix64 of stream * 2^32 + i. Bit-equal to the C++ tests'."""
    with np.errstate(over="ignore"):
        z = (np.uint64(stream) << np.uint64(32)) + np.arange(count, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def tensor_of(values, shape):
    """Rounded to float32, so that float32 and float64 runs start from the same numbers."""
    return torch.from_numpy(values.astype(np.float32).astype(np.float64).reshape(shape))


def formula_state(model):
    """Weights for the i-th entry of the state_dict from stream i: see fill() in tests/models/formula.h."""
    state = {}
    for i, (name, old) in enumerate(model.state_dict().items()):
        u = uniform(i, old.numel())
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.int64)
        elif old.dim() >= 2:
            state[name] = tensor_of((2 * u - 1) * np.sqrt(6.0 / (old.numel() // old.shape[0])), old.shape)
        elif name.endswith("weight") or name.endswith("running_var"):
            state[name] = tensor_of(0.5 + u, old.shape)
        else:
            state[name] = tensor_of(0.4 * u, old.shape)
    return state


def formula_batch(seed, batch, classes, pixels):
    """Images of variance 1 and labels."""
    u = uniform(100_000 + seed, batch * 3 * pixels * pixels)
    images = tensor_of((2 * u - 1) * np.sqrt(3.0), (batch, 3, pixels, pixels))
    return images, torch.tensor([(3 * i + seed) % classes for i in range(batch)])


_TYPES = {"F64": (np.float64, torch.float64), "F32": (np.float32, torch.float32), "I64": (np.int64, torch.int64)}


def save_safetensors(path, tensors, metadata=None):
    header, at, chunks = {"__metadata__": metadata} if metadata else {}, 0, []
    ordered = sorted(tensors, key=lambda name: -tensors[name].element_size())
    for name in ordered:
        tensor = tensors[name].detach().contiguous()
        kind = next(k for k, (_, t) in _TYPES.items() if t == tensor.dtype)
        data = tensor.numpy().tobytes()
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
        chunks.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def load_safetensors(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[begin:end], dtype=_TYPES[entry["dtype"]][0]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return tensors
