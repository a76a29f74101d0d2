#!/usr/bin/env python3
"""Makes golden.inc, what tests/optim/ compares with: numbers computed by PyTorch in float64. `make_golden.py` writes it
beside itself.

Three parameters in two groups go through six steps. Weights and gradients come from a formula that the test has, too:
value(k) = ((k * 37 + 11) % 101) / 50 - 1. In steps 0 and 3 the second parameter has no gradient.
"""
import os
import warnings

import torch

warnings.filterwarnings("ignore")
SHAPES = [(2, 3, 2, 2), (5,), (3, 2)]
STEPS = 6


def values(seed, shape):
    count = int(torch.tensor(shape).prod())
    return torch.tensor([((seed + k) * 37 + 11) % 101 / 50 - 1 for k in range(count)], dtype=torch.float64).reshape(shape)


class RMSpropInside(torch.optim.RMSprop):
    """PyTorch's, with eps inside the root."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state, grad = self.state[p], p.grad + group["weight_decay"] * p
                if not state:
                    state["square_avg"], state["momentum_buffer"] = torch.zeros_like(p), torch.zeros_like(p)
                    state["grad_avg"] = torch.zeros_like(p)
                state["square_avg"].mul_(group["alpha"]).addcmul_(grad, grad, value=1 - group["alpha"])
                spread = state["square_avg"]
                if group["centered"]:
                    state["grad_avg"].mul_(group["alpha"]).add_(grad, alpha=1 - group["alpha"])
                    spread = spread - state["grad_avg"] ** 2
                state["momentum_buffer"].mul_(group["momentum"]).addcdiv_(grad, (spread + group["eps"]).sqrt())
                p.add_(state["momentum_buffer"], alpha=-group["lr"])


def train(kind, second_group, **options):
    params = [torch.nn.Parameter(values(1000 * i, shape)) for i, shape in enumerate(SHAPES)]
    optimizer = kind([{"params": params[:2]}, {"params": params[2:], **second_group}], **options)
    for step in range(STEPS):
        for i, (param, shape) in enumerate(zip(params, SHAPES)):
            param.grad = None if step in (0, 3) and i == 1 else values(100 * step + 10 * i + 7, shape)
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in params]).tolist()


GROUP = {"lr": 0.05, "weight_decay": 0.0}
OWN = torch.optim
OPTIMIZERS = {
    "sgd": (OWN.SGD, dict(lr=0.1)),
    "sgd_decay": (OWN.SGD, dict(lr=0.1, weight_decay=0.01)),
    "sgd_momentum": (OWN.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.01)),
    "sgd_dampening": (OWN.SGD, dict(lr=0.1, momentum=0.9, dampening=0.3)),
    "sgd_nesterov": (OWN.SGD, dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
    "adam": (OWN.Adam, dict(lr=0.01)),
    "adam_decay": (OWN.Adam, dict(lr=0.01, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)),
    "adam_amsgrad": (OWN.Adam, dict(lr=0.01, betas=(0.5, 0.6), amsgrad=True)),
    "adamw": (OWN.AdamW, dict(lr=0.01)),
    "adamw_amsgrad": (OWN.AdamW, dict(lr=0.01, betas=(0.5, 0.6), weight_decay=0.3, amsgrad=True)),
    "rmsprop": (OWN.RMSprop, dict()),
    "rmsprop_momentum": (OWN.RMSprop, dict(lr=0.02, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=0.01)),
    "rmsprop_centered": (OWN.RMSprop, dict(lr=0.02, alpha=0.9, centered=True)),
    "rmsprop_centered_momentum": (OWN.RMSprop, dict(lr=0.02, alpha=0.9, momentum=0.5, centered=True)),
    "rmsprop_inside": (RMSpropInside, dict(lr=0.02, alpha=0.9, eps=0.05, weight_decay=0.01)),
    "rmsprop_inside_all": (RMSpropInside, dict(lr=0.02, alpha=0.9, eps=0.05, momentum=0.9, centered=True)),
}


def rates(make, steps):
    """Both groups' rates from step 0 on."""
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    sgd = torch.optim.SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.05}], lr=0.4)
    scheduler = make(sgd)
    result = []
    for _ in range(steps):
        result += [group["lr"] for group in sgd.param_groups]
        sgd.step()
        scheduler.step()
    return result


LR = torch.optim.lr_scheduler
SCHEDULES = {
    "step_decay": (lambda o: LR.StepLR(o, step_size=3), 8),
    "multi_step": (lambda o: LR.MultiStepLR(o, milestones=[2, 5, 6], gamma=0.5), 8),
    "exponential": (lambda o: LR.ExponentialLR(o, gamma=0.9), 6),
    "cosine": (lambda o: LR.CosineAnnealingLR(o, T_max=7, eta_min=0.01), 8),
    "one_cycle": (lambda o: LR.OneCycleLR(o, max_lr=[0.4, 0.05], total_steps=11, cycle_momentum=False), 11),
    "one_cycle_options": (lambda o: LR.OneCycleLR(o, max_lr=[0.4, 0.05], total_steps=10, pct_start=0.45, div_factor=10,
                                                  final_div_factor=50, cycle_momentum=False), 10),
    "linear_warmup": (lambda o: LR.LinearLR(o), 8),
    "linear_warmup_options": (lambda o: LR.LinearLR(o, start_factor=0.1, end_factor=0.8, total_iters=4), 7),
    "sequential": (lambda o: LR.SequentialLR(
        o, [LR.LinearLR(o, start_factor=0.25, total_iters=3), LR.ExponentialLR(o, gamma=0.7), LR.StepLR(o, 2)], [3, 6]), 11),
}


def plateau(metrics, **options):
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    sgd = torch.optim.SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.05}], lr=0.4)
    scheduler = LR.ReduceLROnPlateau(sgd, **options)
    result = []
    for metric in metrics:
        scheduler.step(metric)
        result += [group["lr"] for group in sgd.param_groups]
    return result


METRICS = [1, 0.9, 0.8995, 0.91, 0.95, 0.7, 0.7, 0.71, 0.72, 0.69, 0.69, 0.69, 0.69, 0.69, float("nan"), 0.3]
PLATEAUS = {
    "plateau_min_rel": dict(patience=1, threshold=1e-2, factor=0.5),
    "plateau_min_abs": dict(patience=2, threshold=0.05, threshold_mode="abs", min_lr=0.04, cooldown=1),
    "plateau_max_rel": dict(mode="max", patience=3, factor=0.2, cooldown=2, eps=0.02),
    "plateau_max_abs": dict(mode="max", patience=1, threshold=0.04, threshold_mode="abs", factor=0.7),
}


def clip(max_norm):
    params = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in SHAPES]
    for i, param in enumerate(params):
        param.grad = values(10 * i + 7, param.shape)
    norm = torch.nn.utils.clip_grad_norm_(params, max_norm)
    return [norm.item()] + torch.cat([p.grad.reshape(-1) for p in params]).tolist()


def main():
    tables = {name: train(kind, GROUP, **options) for name, (kind, options) in OPTIMIZERS.items()}
    tables |= {name: rates(make, steps) for name, (make, steps) in SCHEDULES.items()}
    tables |= {name: plateau(METRICS, **options) for name, options in PLATEAUS.items()}
    tables |= {"clip_small": clip(0.5), "clip_large": clip(50.0)}
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden.inc")
    with open(path, "w", encoding="ascii") as file:
        file.write(f"// Made by make_golden.py with PyTorch {torch.__version__.split('+')[0]}.\n")
        for name, numbers in tables.items():
            file.write(f'{{"{name}", {{' + ", ".join(f"{x:.17g}" for x in numbers) + "}},\n")


if __name__ == "__main__":
    main()
