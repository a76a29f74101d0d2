#!/usr/bin/env python3
"""PyTorch's side of the comparison on CIFAR-10: what `lamella-mobilenet train` does, from the same recipe.

    torch_cifar10.py --data FOLDER --recipe RECIPE.json [--csv FILE]

FOLDER holds train/ and test/, each with a folder of images per class, all of one size up to 64 pixels. Network, laws of
initialisation and augmentation, parameter groups, learning rates, averaged weights and tests are Lamella's; the random
numbers are not. Needs PyTorch, torchvision, NumPy and Pillow.
"""
import argparse
import copy
import json
import math
import os
import random
import sys
import time

try:
    import numpy as np
    import torch
    import torchvision
    from PIL import Image
except ImportError as error:
    sys.exit(f"error: {sys.executable} lacks what this needs, PyTorch, torchvision, NumPy and Pillow: {error}")

# Names and defaults of examples/mobilenet/recipe.h.
DEFAULTS = {
    "model": "v2", "width": 1.0, "stem": "auto", "dropout": 0.2, "drop_path": 0.0,
    "image_size": 0, "crop_padding": 4, "flip": True, "cutout": 0, "mixup": 0.0,
    "epochs": 10, "batch": 128, "optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
    "schedule": "cosine", "warmup_epochs": 0.0, "label_smoothing": 0.0, "clip_grad_norm": 0.0, "ema": 0.0,
    "precision": "float32", "memory_format": "channels_last", "seed": 1,
}
# Of those that are words, what is done here.
CHOICES = {
    "model": ("v2",), "stem": ("auto", "small", "imagenet"), "optimizer": ("sgd", "adam", "adamw"),
    "schedule": ("cosine", "one-cycle", "constant"), "precision": ("float32", "tf32", "bfloat16"),
    "memory_format": ("channels_last", "contiguous"),
}
# What lamella-mobilenet takes for image folders, of bytes / 255.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LARGEST = 64


class Refused(Exception):
    pass


def check_recipe(given):
    """The recipe with its defaults; Refused for what is not known or not done here."""
    if not isinstance(given, dict):
        raise Refused("a recipe must be a JSON object")
    for name, value in given.items():
        if name not in DEFAULTS:
            raise Refused(f"recipe: there is no setting '{name}'")
        kind = type(DEFAULTS[name])
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not fits and not (kind is float and isinstance(value, int) and not isinstance(value, bool)):
            raise Refused(f"recipe: {name} cannot be {json.dumps(value)}")
        if name in CHOICES and value not in CHOICES[name]:
            raise Refused(f"{name} is '{value}'; only {', '.join(CHOICES[name])} are done here")
    recipe = {**DEFAULTS, **given}
    if recipe["drop_path"] != 0:
        raise Refused(f"drop_path is {recipe['drop_path']}; torchvision's network has no such thing")
    if recipe["schedule"] == "one-cycle" and recipe["warmup_epochs"] > 0:
        raise Refused("warmup_epochs: the one-cycle schedule warms up by itself")
    if recipe["epochs"] < 1 or recipe["batch"] < 1 or recipe["crop_padding"] < 0:
        raise Refused("epochs and batch must be at least 1, crop_padding not negative")
    return recipe


def load_images(folder):
    """(images [N,H,W,3] uint8, labels [N], names of the classes)"""
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    images, labels = [], []
    for label, name in enumerate(classes):
        for file in sorted(os.listdir(os.path.join(folder, name))):
            if not file.lower().endswith((".jpg", ".jpeg", ".png")):
                continue
            path = os.path.join(folder, name, file)
            with Image.open(path) as image:
                pixels = np.asarray(image)
            if pixels.ndim != 3 or pixels.shape[2] != 3 or (images and pixels.shape != images[0].shape):
                raise Refused(f"{path} is {pixels.shape}; images must be in colour and of one size")
            images.append(pixels)
            labels.append(label)
    if not images:
        raise Refused(f"{folder} holds no images")
    return torch.from_numpy(np.stack(images)), torch.tensor(labels), classes


def build(recipe, classes, size):
    """torchvision's network, which starts by Lamella's law. A small stem: the first two strides are 1."""
    net = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=recipe["width"], dropout=recipe["dropout"])
    if recipe["stem"] == "small" or (recipe["stem"] == "auto" and size <= LARGEST):
        block = net.features[2]
        net.features[0][0].stride = block.conv[1][0].stride = (1, 1)
        # What a block of stride 1 has; with a width of 0.35, say.
        block.use_res_connect = block.conv[0][0].in_channels == block.out_channels
    return net


def parameter_groups(net, weight_decay):
    """As lamella::optim::no_decay_groups()."""
    decayed, plain = [], []
    for name, parameter in net.named_parameters():
        (decayed if parameter.dim() > 1 and not name.endswith("bias") else plain).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def make_optimizer(recipe, net):
    groups = parameter_groups(net, recipe["weight_decay"])
    if recipe["optimizer"] == "adam":
        return torch.optim.Adam(groups, lr=recipe["lr"])
    if recipe["optimizer"] == "adamw":
        return torch.optim.AdamW(groups, lr=recipe["lr"])
    return torch.optim.SGD(groups, lr=recipe["lr"], momentum=recipe["momentum"], nesterov=recipe["momentum"] > 0)


def learning_rate(recipe, steps_per_epoch, step):
    """Of the update after `step` others: the formulas of src/optim/schedule.cpp and examples/mobilenet/train.cpp."""
    steps, peak = recipe["epochs"] * steps_per_epoch, recipe["lr"]

    def along_cosine(a, b, t):
        return b + (a - b) * (1 + math.cos(math.pi * t)) / 2

    if recipe["schedule"] == "one-cycle":
        first = peak / 25
        last, end, turn = first / 1e4, steps - 1.0, 0.3 * steps - 1
        at = min(step, end)
        if at <= turn:
            return along_cosine(first, peak, at / turn) if turn > 1e-9 else peak
        return along_cosine(peak, last, (at - turn) / (end - turn))
    warmup = int(recipe["warmup_epochs"] * steps_per_epoch)
    if step < warmup:
        return peak * (1 / warmup + (1 - 1 / warmup) * (step / warmup))
    if recipe["schedule"] == "constant":
        return peak
    fall = max(1, steps - warmup)
    return 0.0 if step - warmup >= fall else along_cosine(peak, 0.0, (step - warmup) / fall)


class Images:
    """A set of images in the device's memory."""

    def __init__(self, images, labels, device, padding=0):
        self.size, self.padding, self.device = images.shape[1], padding, device
        self.pixels = torch.nn.functional.pad(images, (0, 0, padding, padding, padding, padding)).to(device)
        self.labels = labels.to(device)
        self.mean, self.std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))
        self.along = torch.arange(self.size, device=device)

    def __len__(self):
        return len(self.labels)

    def batch(self, which, layout, generator=None, flip=False, cutout=0):
        """Images [n,3,H,W]: a crop at random of the padded ones, then some mirrored, normalised, a square covered."""
        n, along = len(which), self.along

        def random_integers(below):
            return torch.randint(below, (n, 1), device=self.device, generator=generator)

        rows = columns = along.expand(n, -1)
        if flip:
            columns = torch.where(random_integers(2) == 1, self.size - 1 - along, along)
        if self.padding > 0:
            rows = rows + random_integers(2 * self.padding + 1)
            columns = columns + random_integers(2 * self.padding + 1)
        pixels = self.pixels[which[:, None, None], rows[:, :, None], columns[:, None, :]]
        images = pixels.permute(0, 3, 1, 2).float() / 255
        images = (images - self.mean) / self.std
        if cutout > 0:
            down, across = (along - random_integers(self.size) + cutout // 2 for _ in range(2))
            rows, columns = ((at >= 0) & (at < cutout) for at in (down, across))
            images = images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)
        return images.contiguous(memory_format=layout), self.labels[which]


def mixed(images, labels, classes, kept):
    """Each with its predecessor in the batch."""
    targets = torch.nn.functional.one_hot(labels, classes).float()
    return (kept * images + (1 - kept) * images.roll(1, 0), kept * targets + (1 - kept) * targets.roll(1, 0))


class Ema:
    """Averages of parameters and buffers, as lamella::optim::Ema with warm_up makes them."""

    def __init__(self, net, decay):
        self.net, self.decay, self.updates = copy.deepcopy(net).eval(), decay, 0

        def floating(module):
            return [t.detach() for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]

        self.averages, self.values = floating(self.net), floating(net)

    @torch.no_grad()
    def update(self):
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_mul_(self.averages, keep)
        torch._foreach_add_(self.averages, self.values, alpha=1 - keep)
        self.updates += 1


class Trainer:
    def __init__(self, recipe, train, test, classes, device, capture=False):
        """`train` and `test`: images and labels, as load_images() gives them."""
        size = train[0].shape[1]
        if size > LARGEST or train[0].shape[2] != size or recipe["image_size"] not in (0, size):
            raise Refused(f"images of {tuple(train[0].shape[1:3])} pixels with image_size {recipe['image_size']}; "
                          f"only squares up to {LARGEST} as they are are done here")
        self.recipe, self.classes, self.device, self.capture = recipe, classes, torch.device(device), capture
        self.layout = getattr(torch, {"contiguous": "contiguous_format"}.get(recipe["memory_format"], "channels_last"))
        self.train_images = Images(*train, self.device, recipe["crop_padding"])
        self.test_images = Images(*test, self.device)
        torch.manual_seed(recipe["seed"])
        self.random = torch.Generator(self.device).manual_seed(recipe["seed"])
        self.mixup_random = random.Random(recipe["seed"])
        self.net = build(recipe, classes, size).to(memory_format=self.layout).to(self.device).train()
        self.optimizer = make_optimizer(recipe, self.net)
        self.ema = Ema(self.net, recipe["ema"]) if recipe["ema"] > 0 else None
        count, batch = len(self.train_images), recipe["batch"]
        self.steps_per_epoch = count // batch if count > batch else 1  # without a last batch that is not full
        self.step_number, self.graph = 0, None

    def load(self, state):
        """Starts from these weights instead."""
        self.net.load_state_dict(state)
        if self.ema:
            self.ema.net.load_state_dict(state)

    def gradients(self, images, targets):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe["precision"] == "bfloat16"):
            loss = torch.nn.functional.cross_entropy(self.net(images), targets,
                                                     label_smoothing=self.recipe["label_smoothing"])
        loss.backward()
        return loss.detach()

    def captured_gradients(self, images, targets):
        """After some steps as always, which choose algorithms, records one and replays it."""
        if self.step_number < 3:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                loss = self.gradients(images, targets)
            torch.cuda.current_stream().wait_stream(side)
            return loss
        if self.graph is None:
            self.inputs = images.clone(), targets.clone()
            self.optimizer.zero_grad(set_to_none=True)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.loss = self.gradients(*self.inputs)
        for kept, new in zip(self.inputs, (images, targets)):
            kept.copy_(new)
        self.graph.replay()
        return self.loss

    def step(self, images, targets):
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.steps_per_epoch, self.step_number)
        loss = (self.captured_gradients if self.capture else self.gradients)(images, targets)
        if self.recipe["clip_grad_norm"] > 0:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe["clip_grad_norm"])
        self.optimizer.step()
        if self.ema:
            self.ema.update()
        self.step_number += 1
        return loss

    def train_epoch(self):
        """Mean loss and seconds."""
        start, recipe, images = time.perf_counter(), self.recipe, self.train_images
        self.allow_tf32(recipe["precision"] == "tf32")
        order = torch.randperm(len(images), device=self.device, generator=self.random)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for number in range(self.steps_per_epoch):
            which = order[number * recipe["batch"]:(number + 1) * recipe["batch"]]
            batch = images.batch(which, self.layout, self.random, recipe["flip"], recipe["cutout"])
            if recipe["mixup"] > 0:
                kept = self.mixup_random.betavariate(recipe["mixup"], recipe["mixup"])
                batch = mixed(*batch, self.classes, kept)
            total += self.step(*batch)
        mean = total.item() / self.steps_per_epoch  # waits for the device
        return mean, time.perf_counter() - start

    @torch.no_grad()
    def test_accuracy(self):
        """In float32, with the averaged weights if there are any."""
        self.allow_tf32(False)
        net, right = self.ema.net if self.ema else self.net.eval(), 0
        for which in torch.arange(len(self.test_images), device=self.device).split(1000):
            images, labels = self.test_images.batch(which, self.layout)
            right += (net(images).argmax(1) == labels).sum()
        self.net.train()
        return right.item() / len(self.test_images)

    @staticmethod
    def allow_tf32(allow):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train/ and test/")
    parser.add_argument("--recipe", required=True, help="JSON file that lamella-mobilenet reads, too")
    parser.add_argument("--csv", help="file for epoch, train_loss, test_accuracy, seconds")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--capture", action="store_true", help="record forward and backward in a CUDA graph")
    for name, kind in (("seed", int), ("epochs", int), ("precision", str)):
        parser.add_argument("--" + name, type=kind, help="in place of the recipe's")
    args = parser.parse_args()
    with open(args.recipe) as file:
        given = json.load(file)
    if isinstance(given, dict):
        given.update({name: value for name in ("seed", "epochs", "precision")
                      if (value := getattr(args, name)) is not None})
    recipe = check_recipe(given)
    if args.capture and torch.device(args.device).type != "cuda":
        raise Refused("--capture needs a GPU")
    torch.backends.cudnn.benchmark = True
    *train, classes = load_images(os.path.join(args.data, "train"))
    *test, same = load_images(os.path.join(args.data, "test"))
    if classes != same:
        raise Refused(f"{args.data}: train/ and test/ hold different classes")
    trainer = Trainer(recipe, train, test, len(classes), args.device, args.capture)
    csv = open(args.csv, "w") if args.csv else open(os.devnull, "w")
    with csv:
        csv.write("epoch,train_loss,test_accuracy,seconds\n")
        for epoch in range(1, recipe["epochs"] + 1):
            loss, seconds = trainer.train_epoch()
            if not math.isfinite(loss):
                raise Refused(f"the loss of epoch {epoch} is {loss}")
            accuracy = trainer.test_accuracy()
            print(f"epoch {epoch}/{recipe['epochs']}: loss {loss:.4f} test accuracy {100 * accuracy:.2f} % "
                  f"({seconds:.1f} s)", flush=True)
            csv.write(f"{epoch},{loss:.6f},{accuracy:.6f},{seconds:.3f}\n")
            csv.flush()


if __name__ == "__main__":
    try:
        main()
    except (Refused, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
