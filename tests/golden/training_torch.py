#!/usr/bin/env python3
"""lamella-mobilenet and bench/torch_cifar10.py on the same steps: `training_torch.py PROGRAM DATA`.

PROGRAM is lamella-mobilenet, DATA a folder of images as CIFAR-10's: train/ and test/ with a folder of JPEG files per class.
Both sides start from PyTorch's weights and take steps of all images at once, so that their order does not matter, without
dropout and changes of images: losses, weights, averages, the optimizer's state and test accuracy must be as near to
PyTorch's in float64 as PyTorch's own in float32 (times three: either may be luckier). Learning rates must agree to the last bits anywhere in longer runs. Ends with status 1 where a bound is broken.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../bench"))
import torch_cifar10 as peer  # noqa: E402
import torch_models as tm  # noqa: E402

# Small steps: with large ones, rounding alone decides where a network goes within a few of them.
PLAIN = {"width": 0.35, "stem": "small", "dropout": 0, "crop_padding": 0, "flip": False, "batch": 1000}
RUNS = {
    "sgd, one-cycle": {"epochs": 8, "lr": 2e-5, "schedule": "one-cycle", "label_smoothing": 0.1, "ema": 0.9, "weight_decay": 0.05},
    "sgd, warm-up, clipped, contiguous": {"epochs": 8, "lr": 2e-4, "warmup_epochs": 3, "clip_grad_norm": 0.5, "ema": 0.5,
                                          "weight_decay": 0.05, "memory_format": "contiguous"},
    "adamw": {"epochs": 5, "lr": 1e-5, "optimizer": "adamw", "schedule": "constant", "weight_decay": 0.05},
}
RATES = [{"schedule": "one-cycle", "epochs": 7}, {"schedule": "cosine", "epochs": 5},
         {"schedule": "cosine", "epochs": 6, "warmup_epochs": 1.6}, {"schedule": "constant", "warmup_epochs": 2.0}]


def take_some(data, folder, per_class):
    for part in ("train", "test"):
        for name in os.listdir(os.path.join(data, part)):
            to = os.path.join(folder, part, name)
            os.makedirs(to)
            for file in sorted(os.listdir(os.path.join(data, part, name)))[:per_class]:
                shutil.copy(os.path.join(data, part, name, file), to)


def save_start(path, recipe, data, trainer, classes, step=0, position=(0, 0)):
    """A checkpoint of lamella-mobilenet with PyTorch's weights."""
    net, lr = trainer.net.state_dict(), recipe["lr"]
    tensors = {"network." + name: tensor for name, tensor in net.items()}
    if trainer.ema:
        tensors["ema.updates"] = torch.zeros((), dtype=torch.int64)
        tensors.update({"ema.module." + name: tensor for name, tensor in net.items()})
    for group in range(2):
        tensors[f"optimizer.param_groups.{group}.lr"] = torch.tensor(lr, dtype=torch.float64)
    tensors["schedule.step"] = torch.tensor(step)
    tensors["schedule.initial_lrs"] = torch.tensor([lr, lr], dtype=torch.float64)
    image = {"channels": 3, "size": 32, "mean": peer.MEAN, "std": peer.STD, "scale": 255, "classes": classes}
    tm.save_safetensors(path, tensors, {
        "lamella.mobilenet": "1", "source": data, "recipe": json.dumps(recipe), "format": json.dumps(image),
        "position": json.dumps({"epoch": position[0], "batches": position[1], "random": [1, 0, 0]})})


def resume(program, checkpoint, *options):
    result = subprocess.run([program, "train", "--resume", "--checkpoint", checkpoint, "--device", "cpu", *options],
                            capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(result.stderr)
    return tm.load_safetensors(checkpoint)


def part(tensors, prefix):
    return {name[len(prefix):]: tensor for name, tensor in tensors.items()
            if name.startswith(prefix) and not name.endswith(("num_batches_tracked", ".step"))}


def results(trainer):
    """What is compared after training: groups of tensors by name, the losses of the epochs among them."""
    losses, accuracies = [], []
    for _ in range(trainer.recipe["epochs"]):
        losses.append(trainer.train_epoch()[0])
        accuracies.append(trainer.test_accuracy())
    # Numbered over all groups: the same shapes in the same order only where the groups are the same.
    order = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    state = {f"{i}.{name}": value for i, parameter in enumerate(order)
             for name, value in trainer.optimizer.state[parameter].items()}
    averages = trainer.ema.net.state_dict() if trainer.ema else {}
    return {"losses": {"losses": torch.tensor(losses)}, "accuracies": {"accuracies": torch.tensor(accuracies)},
            "weights and buffers": part(trainer.net.state_dict(), ""), "averages": part(averages, ""),
            "optimizer's state": part({"." + name: value for name, value in state.items()}, ".")}


def in_double(trainer):
    trainer.net.double()
    trainer.ema = peer.Ema(trainer.net, trainer.recipe["ema"]) if trainer.ema else None
    for images in (trainer.train_images, trainer.test_images):
        images.mean, images.std = images.mean.double(), images.std.double()
    return trainer


def distance(some, exact):
    """‖a − b‖ / ‖b‖ of all tensors together."""
    assert some.keys() == exact.keys(), some.keys() ^ exact.keys()
    a, b = (torch.cat([tensors[name].double().flatten() for name in exact]) for tensors in (some, exact))
    return ((a - b).norm() / b.norm()).item()


def compare_run(name, settings, program, data, folder):
    recipe = peer.check_recipe({**PLAIN, **settings})
    *train, classes = peer.load_images(os.path.join(data, "train"))
    *test, _ = peer.load_images(os.path.join(data, "test"))
    trainer, exact = (peer.Trainer(recipe, train, test, len(classes), "cpu") for _ in range(2))
    checkpoint, csv = os.path.join(folder, "net"), os.path.join(folder, "curve.csv")
    save_start(checkpoint, recipe, data, trainer, classes)
    saved = resume(program, checkpoint, "--csv", csv)
    with open(csv) as file:
        lines = [line.split(",") for line in file.readlines()[1:]]
    ours = {"losses": {"losses": torch.tensor([float(line[1]) for line in lines])},
            "accuracies": {"accuracies": torch.tensor([float(line[2]) for line in lines])},
            "weights and buffers": part(saved, "network."), "averages": part(saved, "ema.module."),
            "optimizer's state": part(saved, "optimizer.state.")}
    theirs, exact = results(trainer), results(in_double(exact))
    losses = exact["losses"]["losses"]
    print(f"{name}: {recipe['epochs']} steps, loss {losses[0]:.4f} to {losses[-1]:.4f}; from PyTorch's float64 are, "
          "Lamella's and PyTorch's float32:")
    failed = False
    for what in exact:
        if not exact[what]:
            continue
        mine, peers = distance(ours[what], exact[what]), distance(theirs[what], exact[what])
        bad = not mine <= 3 * peers + 1e-5
        failed |= bad
        print(f"  {what:20} {mine:.1e} {peers:.1e}{'  TOO FAR' if bad else ''}")
    rate = saved["optimizer.param_groups.0.lr"].item()
    return failed or abs(rate - peer.learning_rate(recipe, 1, recipe["epochs"])) > 1e-12 * recipe["lr"]


def compare_rates(settings, program, data, folder):
    """A step of Lamella's from many a place of the schedule: the rate that it leaves behind."""
    recipe = peer.check_recipe({**PLAIN, "width": 0.1, "batch": 32, "epochs": 5, **settings})
    *train, classes = peer.load_images(os.path.join(data, "train"))
    trainer = peer.Trainer(recipe, train, train, len(classes), "cpu")
    per_epoch, epochs, far = trainer.steps_per_epoch, recipe["epochs"], 0
    for step in range(per_epoch * epochs):
        checkpoint = os.path.join(folder, "net")
        save_start(checkpoint, recipe, data, trainer, classes, step, (epochs - 1, per_epoch - 1))
        rate = resume(program, checkpoint)["optimizer.param_groups.1.lr"].item()
        far = max(far, abs(rate - peer.learning_rate(recipe, per_epoch, step + 1)) / recipe["lr"])
    print(f"learning rates of {settings}, {per_epoch * epochs} steps: apart by at most {far:.1e} of the highest")
    return far > 1e-12


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("data")
    parser.add_argument("--per-class", type=int, default=8, help="images taken of each")
    args = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "data")
        take_some(args.data, data, args.per_class)
        for name, settings in RUNS.items():
            failures += compare_run(name, settings, args.program, data, folder)
        for settings in RATES:
            failures += compare_rates(settings, args.program, data, folder)
    print("agreed" if failures == 0 else f"{failures} comparisons too far apart")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
