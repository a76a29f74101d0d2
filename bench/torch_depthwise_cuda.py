"""PyTorch's side of bench_depthwise_cuda.

Prints its version, then answers each request line
    n c h w kernel_h kernel_w stride padding_h padding_w dilation dtype format copies
with three times in milliseconds on one line: forward, input gradient, weight gradient, each the better of cuDNN
(benchmark mode) and PyTorch's own kernel, over `copies` sets of buffers in turn, captured in a graph.
"""

import sys

try:
    import torch
except ImportError as error:
    sys.exit(f"error: {sys.executable} has no PyTorch: {error}")


def time_graph(calls, repetitions=7):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    times = []
    for _ in range(repetitions):
        begin, end = torch.cuda.Event(True), torch.cuda.Event(True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / len(calls))
    return sorted(times)[repetitions // 2]


def measure(n, c, h, w, kernel_h, kernel_w, stride, padding_h, padding_w, dilation, dtype, fmt, copies):
    layout = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[fmt]
    dtype = getattr(torch, dtype)

    def fresh(*shape):
        return torch.randn(*shape, device="cuda", dtype=dtype).to(memory_format=layout)

    options = ([stride] * 2, [padding_h, padding_w], [dilation] * 2, False, [0, 0], c)
    weight = fresh(c, 1, kernel_h, kernel_w)
    inputs = [fresh(n, c, h, w) for _ in range(copies)]
    conv, backward = torch.ops.aten.convolution, torch.ops.aten.convolution_backward
    grads = [torch.randn_like(conv(x, weight, None, *options)) for x in inputs]
    best = [float("inf")] * 3
    for torch.backends.cudnn.enabled in (True, False):
        runs = [[lambda x=x: conv(x, weight, None, *options) for x in inputs]]
        for mask in ([True, False, False], [False, True, False]):
            runs.append([lambda x=x, g=g, mask=mask: backward(g, x, weight, None, *options, mask)
                         for x, g in zip(inputs, grads)])
        for i, run in enumerate(runs):
            try:
                best[i] = min(best[i], time_graph(run))
            except RuntimeError:  # not every kernel takes every shape
                pass
    torch.backends.cudnn.enabled = True
    return best


def main():
    if not torch.cuda.is_available():
        sys.exit("no GPU that PyTorch can use")
    torch.backends.cudnn.benchmark = True
    print("PyTorch", torch.__version__, "cuDNN", torch.backends.cudnn.version(), flush=True)
    for line in sys.stdin:
        *numbers, dtype, fmt, copies = line.split()
        print(*measure(*map(int, numbers), dtype, fmt, int(copies)), flush=True)
        torch.cuda.empty_cache()


main()
