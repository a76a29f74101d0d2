"""PyTorch's side of bench_mobilenet: `torch_mobilenet.py THREADS`.

Prints the versions, then answers each line of JSON by one:
    {"model": "v2", "width": 1.0, "classes": 10, "batch": 64, "size": 32, "small_stem": true,
     "format": "channels_last", "device": "cpu", "mode": "eager", "type": "float32"}
        builds that network and its batch and warms up: {"parameters": number of weights, "network": where it comes
        from, "warm_up_seconds"}. Modes are eager, graph (the whole step in a CUDA graph), compile,
        compile-reduce-overhead and compile-max-autotune; types float32, tf32, and bfloat16: autocast
    {"seconds": 1.5}
        trains about so long: {"times": [[forward, backward, optimizer, whole step], ...]}, in milliseconds, of steps
        on the CPU and of means over blocks of them on a GPU; "steps", their number; "loss"; "peak_reserved", the most
        bytes of the GPU that PyTorch's allocator has held since the start, and "steady_reserved", the most once the
        network was warm
or by {"error": text}. One network a process: what compiling and graphs leave behind is nobody else's.
"""

import importlib.metadata
import json
import math
import os
import sys
import time

try:
    import torch
except ImportError as error:
    sys.exit(f"error: {sys.executable} has no PyTorch: {error}")


def mobilenet_v1(classes, width):
    """timm's, where it is not installed or has another width."""
    nn = torch.nn

    def channels(c):
        rounded = max(8, int(c * width + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * c * width else rounded

    def conv(cin, cout, kernel, stride=1, groups=1):
        return [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout),
                nn.ReLU6(inplace=True)]

    cin = channels(32)
    layers = conv(3, cin, 3, 2)
    for c, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2), (1024, 1)]:
        layers += conv(cin, cin, 3, stride, cin) + conv(cin, channels(c), 1)
        cin = channels(c)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, classes))


def build(model, width, classes, small_stem):
    """The network without dropout, and where it comes from."""
    if model == "v1":
        try:
            import timm
        except ImportError:
            timm = None
        if timm is not None and width == 1:
            net, source = timm.create_model("mobilenetv1_100", num_classes=classes), "timm mobilenetv1_100"
        else:
            net, source = mobilenet_v1(classes, width), "written as timm's mobilenetv1"
    else:
        import torchvision

        if model == "v2":
            net = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=width, dropout=0.0)
            source = "torchvision mobilenet_v2"
        else:
            from torchvision.models import mobilenetv3

            name = "mobilenet_" + model.replace("-", "_")
            rows, last = mobilenetv3._mobilenet_v3_conf(name, width_mult=width)
            net = mobilenetv3.MobileNetV3(rows, last, num_classes=classes, dropout=0.0)
            source = "torchvision " + name
    if small_stem:
        strided = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.stride != (1, 1)]
        for conv in strided[:2]:
            conv.stride = (1, 1)
        source += ", small stem"
    return net, source


class Trainer:
    WARM_UP = 5  # steps; graphs and compiled steps are recorded in the first three

    def __init__(self, model, width, classes, batch, size, small_stem, format, device="cpu", mode="eager", type="float32"):
        self.device, self.mode, self.graph, self.bf16 = torch.device(device), mode, None, type == "bfloat16"
        on_gpu = self.device.type == "cuda"
        if mode == "graph" and not on_gpu:
            raise RuntimeError("graphs are for GPUs")
        if mode.startswith("compile") and not hasattr(torch, "compile"):
            raise RuntimeError("this PyTorch has no torch.compile")
        torch.backends.cudnn.benchmark = True
        # With autocast, what stays in float32 may be rounded, too.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = type in ("tf32", "bfloat16")
        if on_gpu:
            torch.cuda.set_device(self.device)
        layout = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[format]
        self.net, self.source = build(model, width, classes, small_stem)
        self.net.to(memory_format=layout).train().to(self.device)
        fused = {"fused": True} if on_gpu else {}
        self.sgd = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9, weight_decay=4e-5, **fused)
        self.images = torch.randn(batch, 3, size, size).contiguous(memory_format=layout).to(self.device)
        self.labels = torch.randint(classes, (batch,)).to(self.device)
        self.forward = self.loss_of
        if mode.startswith("compile"):
            how = mode[len("compile-"):] or "default"
            self.forward = torch.compile(self.loss_of, mode=how)
        self.loss = None
        self.warm_up()

    def loss_of(self, images, labels):
        return torch.nn.functional.cross_entropy(self.net(images), labels)

    def warm_up(self):
        begin = time.perf_counter()
        if self.mode == "graph":
            self.record()
        for _ in range(self.WARM_UP):
            self.queue_step()
        self.before = 0
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            self.before = torch.cuda.max_memory_reserved()
            torch.cuda.empty_cache()  # what trying algorithms has taken
            torch.cuda.reset_peak_memory_stats()
        self.warm_up_seconds = time.perf_counter() - begin

    def plain_step(self):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.forward(self.images, self.labels)
        loss.backward()
        self.sgd.step()
        self.sgd.zero_grad(set_to_none=True)
        return loss.detach()

    def record(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(4):
                self.plain_step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.loss = self.plain_step()
        self.graph = graph

    def queue_step(self):
        if self.graph is not None:
            self.graph.replay()
            return
        if self.mode in ("compile-reduce-overhead", "compile-max-autotune"):
            self.loss = None
            torch.compiler.cudagraph_mark_step_begin()  # the last step's results may be written over
        self.loss = self.plain_step()

    def timed_block(self, steps):
        begin = time.perf_counter()
        for _ in range(steps):
            self.queue_step()
        torch.cuda.synchronize()
        return (time.perf_counter() - begin) * 1e3 / steps

    def train_on_gpu(self, seconds):
        self.queue_step()
        torch.cuda.synchronize()
        steps = min(max(round(50 / max(self.timed_block(1), 1e-3)), 1), 100)  # as Lamella's blocks
        end, times = time.perf_counter() + seconds, []
        while time.perf_counter() < end or len(times) < 2:
            times.append([0, 0, 0, self.timed_block(steps)])
        return times, len(times) * steps

    def step_on_cpu(self):
        times = [time.perf_counter()]
        loss = self.forward(self.images, self.labels)
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        self.sgd.step()
        self.sgd.zero_grad(set_to_none=True)
        times.append(time.perf_counter())
        self.loss = loss.detach()
        return [(b - a) * 1e3 for a, b in zip(times, times[1:])] + [(times[-1] - times[0]) * 1e3]

    def train_on_cpu(self, seconds):
        self.step_on_cpu()
        end, times = time.perf_counter() + seconds, []
        while time.perf_counter() < end or len(times) < 2:
            times.append(self.step_on_cpu())
        return times, len(times)

    def train(self, seconds):
        on_gpu = self.device.type == "cuda"
        times, steps = self.train_on_gpu(seconds) if on_gpu else self.train_on_cpu(seconds)
        loss = float(self.loss)
        if not math.isfinite(loss):
            raise RuntimeError(f"the loss is {loss}")
        steady = torch.cuda.max_memory_reserved() if on_gpu else 0
        return {"times": times, "steps": steps, "loss": loss, "peak_reserved": max(self.before, steady),
                "steady_reserved": steady}


def versions():
    found = [f"PyTorch {torch.__version__}"]
    if torch.version.cuda:
        found.append(f"CUDA {torch.version.cuda}")
        if torch.backends.cudnn.is_available():
            found.append(f"cuDNN {torch.backends.cudnn.version()}")
    for package in ("torchvision", "timm", "triton"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    return ", ".join(found)


def main():
    # What compilers print must not stand among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(int(sys.argv[1]))
    print(versions(), file=answers, flush=True)
    trainer = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "seconds" in request:
                answer = trainer.train(request["seconds"])
            else:
                trainer = Trainer(**request)
                answer = {"parameters": sum(p.numel() for p in trainer.net.parameters()), "network": trainer.source,
                          "warm_up_seconds": trainer.warm_up_seconds}
        except Exception as error:
            text = next((part for part in str(error).splitlines() if part.strip()), "")
            answer = {"error": f"{type(error).__name__}: {text}"}
        print(json.dumps(answer), file=answers, flush=True)


main()
