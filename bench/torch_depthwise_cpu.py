"""PyTorch's side of bench_depthwise_cpu.

Prints its version, then answers each request line
    n c h w kernel_h kernel_w stride padding dilation dtype format rotate repetitions
with three lines of times in milliseconds: forward, input gradient, weight gradient.
"""

import sys
import time

try:
    import torch
except ImportError as error:
    sys.exit(f"error: {sys.executable} has no PyTorch: {error}")


clock = time.thread_time if sys.argv[2] == "cpu-time" else time.perf_counter


def measure(n, c, h, w, kernel_h, kernel_w, stride, padding, dilation, dtype, fmt, rotate, repetitions):
    layout = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[fmt]
    dtype = getattr(torch, dtype)

    def fresh(*shape):
        return torch.rand(*shape).sub_(0.5).to(dtype).contiguous(memory_format=layout)

    weight = fresh(c, 1, kernel_h, kernel_w)
    inputs = [fresh(n, c, h, w)]

    def forward(x, _):
        return torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation, c)

    def backward(which):
        mask = [which == "input", which == "weight", False]
        return lambda x, g: torch.ops.aten.convolution_backward(
            g, x, weight, None, [stride] * 2, [padding] * 2, [dilation] * 2, False, [0, 0], c, mask)

    shape = forward(inputs[0], None).shape
    grads = [fresh(*shape)]
    size = inputs[0].element_size() * (inputs[0].numel() + grads[0].numel())
    while rotate and (len(inputs) < 2 or len(inputs) * size < 160e6):
        inputs.append(fresh(n, c, h, w))
        grads.append(fresh(*shape))

    turn = 0
    for run in (forward, backward("input"), backward("weight")):
        times = []
        for _ in range(repetitions + 1):
            x, g = inputs[turn % len(inputs)], grads[turn % len(inputs)]
            turn += 1
            start = clock()
            run(x, g)
            times.append((clock() - start) * 1e3)
        print(*times[1:], flush=True)


def main():
    torch.set_num_threads(int(sys.argv[1]))
    print("torch", torch.__version__, flush=True)
    for line in sys.stdin:
        *numbers, dtype, fmt, rotate, repetitions = line.split()
        measure(*map(int, numbers), dtype, fmt, rotate == "1", int(repetitions))


main()
