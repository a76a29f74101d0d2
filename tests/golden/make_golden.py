#!/usr/bin/env python3
"""Makes the golden files of tests/models/parity_test.cpp with PyTorch: `make_golden.py` writes them beside itself; with
--keep-batches it takes the batches of the files that are there instead of searching for ten minutes.

Weights and images come from a formula (torch_models.py) and are not stored. Stored are, in float64: logits, the loss,
digests of every gradient and of the running statistics after one step, the losses of ten steps of SGD; and how far PyTorch's
own float32 and bfloat16 are from its float64. A digest of a tensor is its norm, its product with a pseudo-random vector, and 16 elements.

Float32 errors mean something only where no activation falls on the other side of a kink than in float64: one that does
moves gradients a thousand times as far as rounding. So the batches are those, of many, whose activations stay farthest
from the kinks, and the error of a tensor is the median over them.
"""
import os
import sys

import numpy as np
import torch

sys.dont_write_bytecode = True
import torch_models as tm  # noqa: E402

CLASSES, PIXELS, BATCH = 10, 48, 6
# ReLU6 has its kink where activations are densest, Hardswish far outside: narrow networks keep the number of chances low.
WIDTHS = {"mobilenet_v1": 0.25, "mobilenet_v2": 0.25, "mobilenet_v3_small": 0.5, "mobilenet_v3_large": 0.5}
BATCHES, CANDIDATES = 7, 200
SGD = dict(lr=0.001, momentum=0.9, weight_decay=4e-5)
KINKS = {torch.nn.ReLU: (0,), torch.nn.ReLU6: (0, 6), torch.nn.Hardswish: (-3, 3), torch.nn.Hardsigmoid: (-3, 3),
         tm.ExactHardsigmoid: (-3, 3)}
SAMPLES = 16


def digest(tensor, stream):
    values = tensor.detach().double().reshape(-1).numpy()
    signs = 2 * tm.uniform(200_000 + stream, values.size) - 1
    at = (tm.uniform(300_000 + stream, SAMPLES) * values.size).astype(np.int64)
    return np.concatenate([[np.sqrt((values**2).sum()), (values * signs).sum()], values[at]])


def fresh(name, state, dtype=torch.float64, channels_last=False):
    model = tm.in_type(tm.build(name, CLASSES, WIDTHS[name]), dtype)
    model.load_state_dict(state)
    return model.train().to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def backward(model, images, labels):
    logits = model(images)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    return logits.detach(), loss.item(), [p.grad.detach().clone() for p in model.parameters()]


def inputs_of_kinks(model, images):
    """What every activation with kinks gets."""
    found, handles = [], []
    for module in model.modules():
        if type(module) in KINKS:
            kinks = KINKS[type(module)]
            handles.append(module.register_forward_pre_hook(
                lambda _, args, kinks=kinks: found.append((args[0].detach().double().clone(), kinks))))
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return found


def layout(channels_last):
    return torch.channels_last if channels_last else torch.contiguous_format


def margins(name, state):
    """For each batch the smallest distance of an activation from a kink, in units of its layer's float32 error."""
    double = fresh(name, state)
    singles = [(fresh(name, state, torch.float32, last), layout(last)) for last in (False, True)]
    result = []
    for seed in range(CANDIDATES):
        images = tm.formula_batch(seed, BATCH, CLASSES, PIXELS)[0]
        exact = inputs_of_kinks(double, images)
        smallest = np.inf
        for single, memory_format in singles:
            rounded = inputs_of_kinks(single, images.float().contiguous(memory_format=memory_format))
            for (a, kinks), (b, _) in zip(exact, rounded):
                error = (a - b).pow(2).mean().sqrt().item()
                smallest = min(smallest, min((a - kink).abs().min().item() for kink in kinks) / error)
        result.append(smallest)
    return result


def make(name, keep_batches):
    state = tm.formula_state(tm.build(name, CLASSES, WIDTHS[name]))
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".safetensors")
    if keep_batches:
        seeds = tm.load_safetensors(path)["seeds"].tolist()
    else:
        distance = margins(name, state)
        seeds = sorted(range(CANDIDATES), key=lambda seed: -distance[seed])[:BATCHES]
        print(f"{name}: margins {[round(distance[s], 1) for s in seeds]}")
    golden = {"seeds": torch.tensor(seeds)}

    images, labels = tm.formula_batch(seeds[0], BATCH, CLASSES, PIXELS)
    with torch.no_grad():
        golden["logits_eval"] = fresh(name, state).eval()(images)
    model = fresh(name, state)
    golden["logits_train"], _, gradients = backward(model, images, labels)
    golden["gradients"] = torch.from_numpy(np.stack([digest(g, i) for i, g in enumerate(gradients)]))
    buffers = [b for n, b in model.named_buffers() if not n.endswith("num_batches_tracked")]
    golden["buffers"] = torch.from_numpy(np.stack([digest(b, i) for i, b in enumerate(buffers)]))

    model, losses = fresh(name, state), []
    sgd = torch.optim.SGD(model.parameters(), **SGD)
    for _ in range(10):
        sgd.zero_grad()
        losses.append(backward(model, images, labels)[1])
        sgd.step()
    golden["losses"] = torch.tensor(losses, dtype=torch.float64)

    # What float32 and bfloat16 do to each gradient and, last, to the logits: norms of the differences.
    for dtype in (torch.float32, torch.bfloat16):
        for last in (False, True):
            errors = []
            for seed in seeds:
                images, labels = tm.formula_batch(seed, BATCH, CLASSES, PIXELS)
                exact_logits, _, exact = backward(fresh(name, state), images, labels)
                logits, _, rounded = backward(fresh(name, state, dtype, last),
                                              images.to(dtype).contiguous(memory_format=layout(last)), labels)
                errors.append([(a.double() - b).norm().item() for a, b in zip(rounded + [logits], exact + [exact_logits])])
            key = f"{str(dtype)[6:]}_{'channels_last' if last else 'contiguous'}"
            golden[key] = torch.from_numpy(np.median(errors, axis=0))
            relative = golden[key][:-1] / golden["gradients"][:, 0]
            print(f"{name}: {key} errors of gradients: median {relative.median():.1e}")

    tm.save_safetensors(path, golden, {
        "state": "\n".join(f"{n} {list(t.shape)}".replace(", ", ",") for n, t in state.items()),
        "classes": str(CLASSES), "width": str(WIDTHS[name]), "pixels": str(PIXELS), "batch": str(BATCH)})
    print(f"{name}: losses {losses[0]:.3f} to {losses[-1]:.3f}, {os.path.getsize(path)} bytes", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for model_name in tm.MODELS:
        make(model_name, sys.argv[1:] == ["--keep-batches"])
