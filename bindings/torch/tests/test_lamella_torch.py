#!/usr/bin/env python3
"""lamella_torch against PyTorch, on the CPU and, where there is one, on the GPU."""

import copy
import io
import pickle
import unittest

import torch
import torch.nn.functional as F

import lamella_torch
from lamella_torch import DepthwiseConv2d, depthwise_conv2d

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
FORMATS = (torch.contiguous_format, torch.channels_last)
# Relative norm of the error against float64: one rounding of the result, and some of the sum.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 4e-3, torch.float16: 5e-4}
needs_gpu = unittest.skipUnless(torch.cuda.is_available(), "no GPU that PyTorch can use")

# input, channel multiplier, kernel, options
GEOMETRIES = [
    ((2, 8, 17, 15), 1, (3, 3), {"padding": 1}),
    ((2, 8, 17, 16), 1, (3, 3), {"padding": 1, "stride": 2}),
    ((2, 6, 14, 19), 2, (3, 5), {"padding": (1, 2), "stride": (2, 1)}),
    ((3, 5, 12, 11), 1, (3, 7), {}),
    ((3, 5, 12, 11), 1, (3, 1), {"dilation": (2, 1)}),
    ((2, 4, 9, 10), 3, (2, 4), {"padding": "same", "dilation": (2, 1)}),
    ((2, 16, 7, 7), 1, (7, 7), {"padding": 3}),
    ((1, 1, 8, 8), 4, (3, 3), {"padding": "valid"}),
    ((2, 3, 1, 1), 1, (3, 3), {"padding": 1}),
    ((0, 4, 6, 6), 1, (3, 3), {"padding": 1}),
    ((1, 2, 40, 40), 1, (17, 17), {"padding": 8}),
]


def error(actual, exact):
    difference = (actual.double() - exact).norm().item()
    size = exact.norm().item()
    return difference / size if size > 0 else difference


def leaves(shape, multiplier, kernel, device, dtype, fmt, bias=True):
    generator = torch.Generator().manual_seed(1)

    def fresh(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)

    x = fresh(*shape).contiguous(memory_format=fmt)
    w = fresh(shape[1] * multiplier, 1, *kernel)
    b = fresh(shape[1] * multiplier) if bias else None
    return [t if t is None else t.requires_grad_() for t in (x, w, b)]


def run(function, inputs, grad=None):
    """The result and the gradients of those inputs that want one."""
    y = function(*inputs)
    if grad is None:
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    grad = grad.to(y.device, y.dtype).contiguous(
        memory_format=torch.channels_last if y.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    )
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    return [y.detach(), *torch.autograd.grad(y, wanted, grad)]


def exact(inputs, options, grad=None):
    doubles = [t if t is None else t.detach().cpu().double().requires_grad_(t.requires_grad) for t in inputs]
    return run(lambda x, w, b: F.conv2d(x, w, b, groups=x.shape[1], **options), doubles, grad)


class FunctionTest(unittest.TestCase):
    def compare(self, inputs, options, function=None):
        function = function or (lambda x, w, b: depthwise_conv2d(x, w, b, **options))
        ours = run(function, inputs)
        reference = exact(inputs, options)
        self.assertEqual(len(ours), len(reference))
        for a, e in zip(ours, reference):
            self.assertEqual(a.shape, e.shape)
            self.assertEqual(a.dtype, inputs[0].dtype)
            self.assertEqual(a.device, inputs[0].device)
            self.assertLess(error(a.cpu(), e), TOLERANCE[a.dtype] + 1e-300)
        return ours

    def test_values_and_gradients(self):
        for device in DEVICES:
            for shape, multiplier, kernel, options in GEOMETRIES:
                for dtype in DTYPES:
                    for fmt in FORMATS:
                        with self.subTest(device=device, shape=shape, kernel=kernel, dtype=dtype, fmt=fmt, **options):
                            inputs = leaves(shape, multiplier, kernel, device, dtype, fmt)
                            y, dx, *_ = self.compare(inputs, options)
                            if y.numel() > 0 and shape[1] > 1:
                                self.assertTrue(y.is_contiguous(memory_format=fmt))
                                self.assertTrue(dx.is_contiguous(memory_format=fmt))

    def test_strides_are_those_of_pytorch(self):
        for shape in ((2, 6, 9, 8), (2, 6, 1, 1), (1, 6, 5, 5), (2, 1, 8, 8), (2, 6, 9, 1)):
            for fmt in FORMATS:
                x = torch.empty(shape, memory_format=fmt).normal_()
                w = torch.randn(2 * shape[1], 1, 3, 3)
                ours = depthwise_conv2d(x, w, padding=2)
                self.assertEqual(ours.stride(), F.conv2d(x, w, padding=2, groups=shape[1]).stride(), (shape, fmt))

    def test_each_gradient_alone(self):
        for device in DEVICES:
            for which in range(1, 8):
                inputs = leaves((2, 6, 9, 8), 1, (3, 3), device, torch.float32, torch.contiguous_format)
                for i, t in enumerate(inputs):
                    t.requires_grad_(bool(which >> i & 1))
                self.compare(inputs, {"padding": 1})

    def test_without_bias_and_without_batch(self):
        for device in DEVICES:
            x, w, _ = leaves((2, 6, 9, 8), 1, (3, 3), device, torch.float32, torch.contiguous_format, bias=False)
            self.compare([x, w, None], {})
            single = depthwise_conv2d(x[0], w)
            self.assertTrue(torch.equal(single, depthwise_conv2d(x, w)[0]))

    def test_inputs_with_gaps(self):
        for device in DEVICES:
            base = torch.randn(2, 12, 20, 22, device=device)
            last = base.contiguous(memory_format=torch.channels_last)
            for x in (
                base[:, ::2],
                base[:, :, 3:, 1:],
                base.transpose(2, 3),
                last[:, 2:8],
                last[:, :, 1:-1, ::2],
                base[:1].expand(3, -1, -1, -1),
                base[:, :1].expand(-1, 6, -1, -1),
                base.flatten()[1 : 1 + 2 * 4 * 9 * 8].view(2, 4, 9, 8),
            ):
                with self.subTest(device=device, shape=x.shape, stride=x.stride()):
                    c = x.shape[1]
                    w = torch.randn(c, 1, 5, 3, device=device).transpose(2, 3).requires_grad_()
                    b = torch.randn(2 * c, device=device)[::2].requires_grad_()
                    self.compare([x.detach().requires_grad_(), w, b], {"padding": 1})

    def test_gradients_of_any_layout(self):
        for device in DEVICES:
            for fmt in FORMATS:
                x, w, b = leaves((2, 6, 9, 8), 1, (3, 3), device, torch.float32, fmt)
                for grad in (
                    torch.ones((), device=device).expand(2, 6, 9, 8),
                    torch.randn(2, 6, 8, 9, device=device).transpose(2, 3),
                    torch.randn(2, 6, 9, 8, device=device),
                    torch.randn(2, 6, 9, 8, device=device).contiguous(memory_format=torch.channels_last),
                ):
                    ours = torch.autograd.grad(depthwise_conv2d(x, w, b, padding=1), (x, w, b), grad)
                    reference = exact([x, w, b], {"padding": 1}, grad.double().cpu())[1:]
                    for a, e in zip(ours, reference):
                        self.assertLess(error(a.cpu(), e), TOLERANCE[torch.float32])

    def test_gradcheck(self):
        for device in DEVICES:
            for fmt in FORMATS:
                for options in ({}, {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}, {"padding": "same"}):
                    inputs = leaves((2, 3, 6, 7), 2, (3, 2), device, torch.float64, fmt)
                    self.assertTrue(
                        torch.autograd.gradcheck(lambda x, w, b: depthwise_conv2d(x, w, b, **options), inputs)
                    )

    def test_the_same_bits_twice(self):
        for device in DEVICES:
            inputs = leaves((4, 16, 30, 31), 1, (3, 3), device, torch.float32, torch.contiguous_format)
            first, second = (run(lambda *t: depthwise_conv2d(*t, padding=1), inputs) for _ in range(2))
            for a, b in zip(first, second):
                self.assertTrue(torch.equal(a, b))

    def test_there_is_no_second_derivative(self):
        x, w, b = leaves((1, 2, 5, 5), 1, (3, 3), "cpu", torch.float64, torch.contiguous_format)
        (dx,) = torch.autograd.grad(depthwise_conv2d(x, w, b).square().sum(), x, create_graph=True)
        with self.assertRaisesRegex(RuntimeError, "depthwise_conv2d has no second derivative"):
            dx.sum().backward()

    def test_a_changed_input_is_noticed(self):
        x, w, b = leaves((1, 2, 5, 5), 1, (3, 3), "cpu", torch.float32, torch.contiguous_format)
        y = depthwise_conv2d(x, w, b)
        with torch.no_grad():
            w.mul_(2)
        with self.assertRaisesRegex(RuntimeError, "modified by an inplace operation"):
            y.sum().backward()

    def test_autocast(self):
        for device in DEVICES:
            for dtype in (torch.bfloat16, torch.float16) if device == "cuda" else (torch.bfloat16,):
                x, w, b = leaves((2, 6, 9, 8), 1, (3, 3), device, torch.float32, torch.contiguous_format)
                with torch.autocast(device, dtype=dtype):
                    y = depthwise_conv2d(x, w, b, padding=1)
                    inner = depthwise_conv2d(x.double(), w.double(), b.double(), padding=1)
                    reference = F.conv2d(x, w, b, padding=1, groups=6)
                self.assertEqual(y.dtype, reference.dtype)
                self.assertEqual(y.dtype, dtype)
                self.assertEqual(inner.dtype, torch.float64)
                self.assertLess(error(y, reference.double()), 2 * TOLERANCE[dtype])
                grads = torch.autograd.grad(y.sum(), (x, w, b))
                references = torch.autograd.grad(reference.sum(), (x, w, b))
                for a, e in zip(grads, references):
                    self.assertEqual(a.dtype, torch.float32)
                    self.assertLess(error(a, e.double()), 4 * TOLERANCE[dtype])

    def test_says_what_does_not_fit(self):
        x, w = torch.zeros(8, 32, 14, 14), torch.zeros(32, 1, 3, 3)
        for error_type, text, call in (
            (RuntimeError, "weight has 24 channels but input has 32 .input .8, 32, 14, 14. float32 cpu, weight",
             lambda: depthwise_conv2d(x, w[:24])),
            (RuntimeError, "weight takes 2 input channels", lambda: depthwise_conv2d(x, torch.zeros(32, 2, 3, 3))),
            (RuntimeError, "weight must be float32 like the input", lambda: depthwise_conv2d(x, w.double())),
            (RuntimeError, "input must be float32, float64", lambda: depthwise_conv2d(x.long(), w.long())),
            (RuntimeError, "bias must have one number", lambda: depthwise_conv2d(x, w, torch.zeros(16))),
            (RuntimeError, "larger than the padded input", lambda: depthwise_conv2d(x, torch.zeros(32, 1, 15, 1))),
            (RuntimeError, "must be at least 1", lambda: depthwise_conv2d(x, w, stride=0)),
            (RuntimeError, "must have 4 axes", lambda: depthwise_conv2d(x[0, 0], w)),
            (RuntimeError, "padding 2097152 must be at most",
             lambda: depthwise_conv2d(x[:1, :1], w[:1], padding=(1 << 21, 0))),
            (ValueError, "needs stride 1", lambda: depthwise_conv2d(x, w, padding="same", stride=2)),
            (ValueError, "'valid', 'same' or numbers", lambda: depthwise_conv2d(x, w, padding="full")),
            (ValueError, "stride must be one number or two", lambda: depthwise_conv2d(x, w, stride=(1, 1, 1))),
        ):
            with self.subTest(text=text), self.assertRaisesRegex(error_type, text):
                call()


class LayerTest(unittest.TestCase):
    OPTIONS = (
        {},
        {"stride": 2, "padding": 1},
        {"padding": "same", "dilation": 2, "bias": False},
        {"padding": "valid", "dtype": torch.float64},
    )

    def pair(self, c=6, m=2, kernel=(3, 5), **options):
        layers = []
        for kind in (DepthwiseConv2d, torch.nn.Conv2d):
            torch.manual_seed(3)
            layers.append(kind(c, c * m, kernel, groups=c, **options))
        return layers

    def test_is_conv2d(self):
        for options in self.OPTIONS:
            ours, theirs = self.pair(**options)
            self.assertIsInstance(ours, torch.nn.Conv2d)
            self.assertEqual(repr(ours), repr(theirs).replace("Conv2d", "DepthwiseConv2d", 1))
            self.assertEqual(list(ours.state_dict()), list(theirs.state_dict()))
            for a, b in zip(ours.parameters(), theirs.parameters()):
                self.assertTrue(torch.equal(a, b))  # the same initialisation from the same seed
            x = torch.randn(2, 6, 11, 12, dtype=ours.weight.dtype)
            self.assertLess(error(ours(x), theirs(x).double()), TOLERANCE[torch.float32])
            self.assertEqual(ours(x[0]).shape, theirs(x[0]).shape)

    def test_state_dict_and_pickle(self):
        ours, theirs = self.pair()
        with torch.no_grad():
            theirs.weight.add_(1)
        ours.load_state_dict(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(1, 6, 8, 8)
        file = io.BytesIO()
        torch.save(ours.state_dict(), file)
        file.seek(0)
        again = self.pair()[0]
        again.load_state_dict(torch.load(file))
        for layer in (again, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            self.assertIs(type(layer), DepthwiseConv2d)
            self.assertTrue(torch.equal(layer(x), ours(x)))

    def test_groups_may_be_left_out(self):
        self.assertEqual(DepthwiseConv2d(8, 16, 3).groups, 8)
        with self.assertRaisesRegex(ValueError, "groups must equal in_channels, got groups=2, in_channels=8"):
            DepthwiseConv2d(8, 8, 3, groups=2)
        with self.assertRaisesRegex(ValueError, "padding_mode must be 'zeros', got 'reflect'"):
            DepthwiseConv2d(8, 8, 3, padding_mode="reflect")
        with self.assertRaises(ValueError):
            DepthwiseConv2d(8, 12, 3)

    def test_convert(self):
        conv = torch.nn.Conv2d
        model = torch.nn.Sequential(
            conv(3, 8, 3), conv(8, 8, 3, groups=8), torch.nn.Sequential(conv(8, 16, 3, groups=8, padding=1)),
            conv(16, 16, 3, groups=16, padding=1, padding_mode="circular"), conv(16, 16, 1),
        )
        x = torch.randn(2, 3, 12, 12)
        before, keys = model(x), list(model.state_dict())
        self.assertIs(lamella_torch.convert(model), model)
        self.assertEqual([type(m) is DepthwiseConv2d for m in model.modules() if isinstance(m, conv)],
                         [False, True, True, False, False])
        self.assertEqual(list(model.state_dict()), keys)
        self.assertLess(error(model(x), before.double()), TOLERANCE[torch.float32])

    def test_trains(self):
        for device in DEVICES:
            results = []
            for layer in self.pair(4, 1, 3, padding=1, device=device):
                torch.manual_seed(5)
                optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
                for _ in range(5):
                    optimizer.zero_grad()
                    layer(torch.randn(2, 4, 9, 9).to(device)).square().mean().backward()
                    optimizer.step()
                results.append(layer.weight.detach())
            self.assertLess(error(results[0].cpu(), results[1].cpu().double()), 1e-5)

    @unittest.skipUnless(hasattr(torch.library, "custom_op"), "this PyTorch is older than 2.4")
    def test_compiles(self):
        for device in DEVICES:
            for options in ({"padding": 1}, {"padding": "same"}, {"stride": 2, "bias": False}):
                for fmt in FORMATS:
                    torch._dynamo.reset()  # it compiles one function for a few layers only
                    layer = DepthwiseConv2d(6, 12, (3, 4), device=device, **options)
                    compiled = torch.compile(
                        lambda x: torch.relu(layer(x)).square(), backend="aot_eager", fullgraph=True
                    )
                    x = torch.randn(2, 6, 9, 8, device=device).contiguous(memory_format=fmt).requires_grad_()
                    wanted = [x, *layer.parameters()]
                    y, reference = compiled(x), torch.relu(layer(x)).square()
                    self.assertEqual(y.stride(), reference.stride())
                    self.assertTrue(torch.equal(y, reference))
                    for a, b in zip(torch.autograd.grad(y.sum(), wanted), torch.autograd.grad(reference.sum(), wanted)):
                        self.assertLess(error(a.cpu(), b.cpu().double()), TOLERANCE[torch.float32])

    @unittest.skipUnless(hasattr(torch.library, "opcheck"), "this PyTorch is older than 2.4")
    def test_operators_are_well_formed(self):
        for fmt in FORMATS:
            x, w, b = leaves((2, 3, 6, 5), 2, (3, 3), "cpu", torch.float32, fmt)
            torch.library.opcheck(torch.ops.lamella_torch.depthwise_conv2d, (x, w, b, [1, 1], [1, 1], [1, 1]))

    @needs_gpu
    def test_cuda_graph(self):
        for fmt in FORMATS:
            layer = DepthwiseConv2d(24, 24, 3, padding=1, device="cuda")
            x = torch.randn(4, 24, 20, 20, device="cuda").contiguous(memory_format=fmt).requires_grad_()
            parameters = [x, *layer.parameters()]
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                torch.autograd.grad(layer(x).sum(), parameters)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = layer(x)
                grads = torch.autograd.grad(y.square().sum(), parameters)
            for seed in range(2):
                torch.manual_seed(seed)
                with torch.no_grad():
                    x.copy_(torch.randn_like(x))
                graph.replay()
                reference = layer(x)
                self.assertTrue(torch.equal(y, reference))
                for a, e in zip(grads, torch.autograd.grad(reference.square().sum(), parameters)):
                    self.assertTrue(torch.equal(a, e))

    @needs_gpu
    def test_streams_and_devices(self):
        side = torch.cuda.Stream()
        device = f"cuda:{torch.cuda.device_count() - 1}"
        layer = DepthwiseConv2d(8, 8, 3, padding=1, device=device)
        x = torch.randn(64, 8, 64, 64, device=device, requires_grad=True)
        reference = run(lambda t: layer(t), [x])
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(10):
                ours = run(lambda t: layer(t), [x])
        side.synchronize()
        for a, b in zip(ours, reference):
            self.assertTrue(torch.equal(a, b))

    @needs_gpu
    def test_memory_stays_flat(self):
        layer = DepthwiseConv2d(16, 16, 3, padding=1, device="cuda")
        x = torch.randn(8, 16, 64, 64, device="cuda", requires_grad=True)
        for i in range(30):
            layer(x).sum().backward()
            if i == 5:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.max_memory_reserved()
        self.assertEqual(torch.cuda.max_memory_reserved(), before)


def separable(layer, padding=1):
    return torch.nn.Sequential(layer(64, 64, 3, stride=1, padding=padding, groups=64, bias=False),
                               torch.nn.Conv2d(64, 128, 1, bias=False))


class KernelBenchTest(unittest.TestCase):
    """KernelBench level 1, numbers 82 to 86, as models that differ in the layer alone: full size on a GPU, a part here."""

    PROBLEMS = {
        "82 square input, square kernel": ((16, 64, 512, 512), lambda layer: layer(64, 64, 3, groups=64, bias=False)),
        "83 square input, asymmetric kernel": (
            (64, 8, 512, 512), lambda layer: layer(8, 8, kernel_size=(3, 1), groups=8, bias=False)),
        "84 asymmetric input, square kernel": (
            (64, 128, 256, 512), lambda layer: layer(128, 128, kernel_size=(3, 3), groups=128, bias=False)),
        "85 asymmetric input, asymmetric kernel": (
            (32, 128, 128, 256), lambda layer: layer(128, 128, (3, 7), (1, 1), (0, 0), (1, 1), groups=128, bias=False)),
        "86 depthwise-separable": ((16, 64, 512, 512), separable),
    }

    def test_drop_in(self):
        for name, ((n, c, h, w), model) in self.PROBLEMS.items():
            for device in DEVICES:
                with self.subTest(name, device=device):
                    if device == "cpu":
                        n, h, w = 1, h // 8, w // 8
                    ours, theirs = model(DepthwiseConv2d).to(device), model(torch.nn.Conv2d).to(device)
                    ours.load_state_dict(theirs.state_dict())
                    x = torch.rand(n, c, h, w, device=device)
                    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
                        y, reference = ours(x), theirs(x)
                        self.assertEqual(y.shape, reference.shape)
                        self.assertLess(((y - reference).norm() / reference.norm()).item(), TOLERANCE[torch.float32])
                        del y, reference
                    # Gradients of a few images: PyTorch's takes long.
                    x = x[: min(n, 4)].clone().requires_grad_()
                    with torch.backends.cudnn.flags(allow_tf32=False):
                        got = torch.autograd.grad(ours(x).square().mean(), [x, *ours.parameters()])
                        wanted = torch.autograd.grad(theirs(x).square().mean(), [x, *theirs.parameters()])
                    for a, b in zip(got, wanted):
                        # Sums of millions of terms, in whatever order PyTorch adds them.
                        self.assertLess(((a - b).norm() / b.norm()).item(), 1e-4)


if __name__ == "__main__":
    unittest.main(verbosity=1)
