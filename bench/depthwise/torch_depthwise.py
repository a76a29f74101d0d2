"""PyTorch's side of bench_depthwise.

Prints its version, then answers each request, a line of JSON, with a line of JSON: for each pass asked for the
median time of a call in milliseconds, the better of cuDNN (benchmark mode) and PyTorch's own kernel, over sets of
buffers in turn, captured in a graph; null where neither can.
"""

import json
import sys

try:
    import torch
except ImportError as error:
    sys.exit(f"error: {sys.executable} has no PyTorch: {error}")


LONGEST = 20  # milliseconds of a replay


def time_graph(calls, repetitions):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        calls[0]()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        calls[0]()
        end.record()
    torch.cuda.current_stream().wait_stream(side)
    end.synchronize()
    calls = calls[:max(1, int(LONGEST / max(begin.elapsed_time(end), 1e-3)))]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    # All replays are queued before the first wait, so that the GPU never waits for Python.
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repetitions + 1)]
    events[0].record()
    for event in events[1:]:
        graph.replay()
        event.record()
    events[-1].synchronize()
    times = sorted(a.elapsed_time(b) for a, b in zip(events, events[1:]))
    return times[repetitions // 2] / len(calls)


def measure(request):
    layout = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}[request["format"]]
    dtype = getattr(torch, request["dtype"])
    channels = request["input"][1]

    def fresh(shape):
        made = torch.empty(shape, device="cuda", dtype=dtype, memory_format=layout)
        return made.uniform_(-1, 1)

    options = (request["stride"], request["padding"], request["dilation"], False, [0, 0], channels)
    weight = fresh(request["weight"])
    inputs = [fresh(request["input"]) for _ in range(request["buffers"])]
    grads = [fresh(request["output"]) for _ in range(request["buffers"])]
    conv, backward = torch.ops.aten.convolution, torch.ops.aten.convolution_backward
    masks = {"input": [True, False, False], "weight": [False, True, False], "both": [True, True, False]}

    def call_of(name, i):
        x, g = inputs[i % len(inputs)], grads[i % len(grads)]
        if name == "forward":
            return lambda: conv(x, weight, None, *options)
        return lambda: backward(g, x, weight, None, *options, masks[name])

    best = {name: None for name in request["passes"]}
    for torch.backends.cudnn.enabled in (True, False):
        for name in request["passes"]:
            try:
                calls = [call_of(name, i) for i in range(request["calls"])]
                time = time_graph(calls, request["repetitions"])
            except RuntimeError:  # not every kernel takes every shape
                continue
            best[name] = time if best[name] is None else min(best[name], time)
    torch.backends.cudnn.enabled = True
    return best


def main():
    if not torch.cuda.is_available():
        sys.exit("no GPU that PyTorch can use")
    torch.backends.cudnn.benchmark = True
    print("PyTorch", torch.__version__, "cuDNN", torch.backends.cudnn.version(), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(json.loads(line))), flush=True)
        torch.cuda.empty_cache()


main()
