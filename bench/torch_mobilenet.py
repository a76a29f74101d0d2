"""PyTorch's side of bench_mobilenet: `torch_mobilenet.py THREADS`.

Prints its version, then answers each line of JSON by one:
    {"model": "v2", "width": 1.0, "classes": 10, "batch": 64, "size": 32, "small_stem": true, "format": "channels_last"}
        builds that network and its batch: {"parameters": number of weights}
    {"seconds": 1.5}
        trains about so long: {"steps": [[forward, backward, optimizer, whole step], ...]}, in milliseconds, and
        "peak_reserved", the most bytes of the GPU that PyTorch's allocator has held since the network was built
or by {"error": text}.
"""

import gc
import json
import sys
import time

try:
    import torch
except ImportError as error:
    sys.exit(f"error: {sys.executable} has no PyTorch: {error}")


def mobilenet_v1(classes, width):
    """What torchvision lacks, with timm's channel counts."""
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
    if model == "v1":
        net = mobilenet_v1(classes, width)
    else:
        import torchvision

        if model == "v2":
            net = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=width)
        else:
            from torchvision.models import mobilenetv3

            name = "mobilenet_" + model.replace("-", "_")
            rows, last = mobilenetv3._mobilenet_v3_conf(name, width_mult=width)
            net = mobilenetv3.MobileNetV3(rows, last, num_classes=classes)
    if small_stem:
        strided = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.stride != (1, 1)]
        for conv in strided[:2]:
            conv.stride = (1, 1)
    return net


class Trainer:
    def __init__(self, model, width, classes, batch, size, small_stem, format, device="cpu", capture=False, tf32=False,
                 bf16=False):
        self.device, self.graph, self.bf16 = torch.device(device), None, bf16
        torch.backends.cudnn.benchmark = True
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        layout = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[format]
        self.net = build(model, width, classes, small_stem).to(memory_format=layout).train().to(self.device)
        self.sgd = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9, weight_decay=4e-5)
        self.images = torch.randn(batch, 3, size, size).contiguous(memory_format=layout).to(self.device)
        self.labels = torch.randint(classes, (batch,)).to(self.device)
        if capture:
            self.record()
        for _ in range(2):
            self.step()

    def plain_step(self):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = torch.nn.functional.cross_entropy(self.net(self.images), self.labels)
        loss.backward()
        self.sgd.step()
        self.sgd.zero_grad(set_to_none=True)

    def record(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.plain_step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.plain_step()
        self.graph = graph

    def gpu_step(self):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        if self.graph is not None:
            self.graph.replay()
        else:
            self.plain_step()
        torch.cuda.synchronize()
        return [0, 0, 0, (time.perf_counter() - begin) * 1e3]

    def step(self):
        if self.device.type == "cuda":
            return self.gpu_step()
        times = [time.perf_counter()]
        loss = torch.nn.functional.cross_entropy(self.net(self.images), self.labels)
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        self.sgd.step()
        self.sgd.zero_grad(set_to_none=True)
        times.append(time.perf_counter())
        del loss
        return [(b - a) * 1e3 for a, b in zip(times, times[1:])] + [(time.perf_counter() - times[0]) * 1e3]

    def peak_reserved(self):
        return torch.cuda.max_memory_reserved() if self.device.type == "cuda" else 0

    def train(self, seconds):
        self.step()
        end, steps = time.perf_counter() + seconds, []
        while time.perf_counter() < end or len(steps) < 2:
            steps.append(self.step())
        return steps


def main():
    torch.set_num_threads(int(sys.argv[1]))
    print("PyTorch", torch.__version__, flush=True)
    trainer = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "seconds" in request:
                answer = {"steps": trainer.train(request["seconds"]), "peak_reserved": trainer.peak_reserved()}
            else:
                trainer = None
                gc.collect()
                trainer = Trainer(**request)
                answer = {"parameters": sum(p.numel() for p in trainer.net.parameters())}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), flush=True)


main()
