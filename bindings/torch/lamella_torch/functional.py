"""The function, its gradient, and what PyTorch's compiler must know of both."""

import ctypes
from typing import List, Optional, Tuple

import torch

from ._library import DTYPES, Problem, check, library

NAME = "lamella_torch.depthwise_conv2d"
_forward = library.lamella_torch_forward
_backward = library.lamella_torch_backward
_workspace = library.lamella_torch_workspace
_MOST_PLANS = 4096


def _pair(value, what):
    if isinstance(value, int):
        return (value, value)
    value = tuple(value)
    if len(value) == 1:
        value *= 2
    if len(value) != 2:
        raise ValueError(f"{NAME}: {what} must be one number or two, got {value}")
    return value


def _describe(input, weight, bias):
    def one(name, t):
        return f"{name} {list(t.shape)} {str(t.dtype)[6:]} {t.device}"

    parts = [one("input", input), one("weight", weight)] + ([] if bias is None else [one("bias", bias)])
    return "(" + ", ".join(parts) + ")"


def _check_operands(input, weight, bias):
    def need(condition, message):
        if not condition:
            raise RuntimeError(f"{NAME}: {message} {_describe(input, weight, bias)}")

    need(input.dim() == 4, f"input must have 4 axes [N,C,H,W], or 3 without a batch, has {input.dim()}")
    need(weight.dim() == 4, f"weight must have 4 axes [C*m,1,kh,kw], has {weight.dim()}")
    channels = input.shape[1]
    need(channels >= 1, "input needs at least 1 channel")
    need(
        weight.shape[0] >= 1 and weight.shape[0] % channels == 0,
        f"weight has {weight.shape[0]} channels but input has {channels}",
    )
    need(weight.shape[1] == 1, f"weight takes {weight.shape[1]} input channels for each output channel, must be 1")
    need(input.dtype in DTYPES, "input must be float32, float64, bfloat16 or float16")
    need(input.device.type in ("cpu", "cuda"), "input must be on the CPU or an NVIDIA GPU")
    for what, t in (("weight", weight), ("bias", bias)):
        if t is not None:
            need(t.dtype == input.dtype, f"{what} must be {str(input.dtype)[6:]} like the input")
            need(t.device == input.device, f"{what} must be on {input.device} like the input")
    need(
        bias is None or (bias.dim() == 1 and bias.shape[0] == weight.shape[0]),
        f"bias must have one number for each of the {weight.shape[0]} output channels",
    )


def _padding_and_output(shape, kernel, stride, padding, dilation):
    """The zeros at the beginning of each axis, and the output's size along it."""
    if padding == "same":
        if stride != (1, 1):
            raise ValueError(f"{NAME}: padding='same' needs stride 1, got {stride}")
        return tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel)), tuple(shape[2:])
    if padding == "valid":
        padding = (0, 0)
    elif isinstance(padding, str):
        raise ValueError(f"{NAME}: padding must be 'valid', 'same' or numbers, got {padding!r}")
    padding = _pair(padding, "padding")
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0:
        raise RuntimeError(
            f"{NAME}: stride and dilation must be at least 1, and padding 0; got stride {stride}, padding {padding}, "
            f"dilation {dilation}"
        )
    size = tuple(
        (shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)
    )
    if min(size) < 1:
        raise RuntimeError(
            f"{NAME}: the dilated kernel is larger than the padded input (input {list(shape)}, kernel {kernel}, padding "
            f"{padding}, dilation {dilation})"
        )
    return padding, size


def _format_of(input):
    """The output's format, by PyTorch's own rule for tensors whose sizes of 1 let them be both."""
    least = 0
    for axis in (1, 3, 2, 0):
        size, stride = input.shape[axis], input.stride(axis)
        if size == 0 or stride < least or (axis == 0 and least == input.stride(1)) or (axis == 1 and stride == 0):
            return torch.contiguous_format
        least = stride * max(size, 1)
    return torch.channels_last


def _readable(input):
    """The input itself where kernels read it as fast as a dense one, else a dense copy."""
    if input.is_contiguous() or input.is_contiguous(memory_format=torch.channels_last):
        return input
    strides = input.stride()
    if strides[1] == 1 and strides[0] >= strides[2] >= strides[3] >= input.shape[1]:
        return input  # some of a channels_last tensor's channels, rows or columns
    return input.contiguous()


class _Plan:
    """All that is the same in every call for one geometry."""

    __slots__ = ("problem", "reference", "output", "format", "device", "index", "dtype", "workspaces")

    def __init__(self, input, weight, bias, stride, padding, dilation):
        _check_operands(input, weight, bias)
        kernel = tuple(weight.shape[2:])
        stride, dilation = _pair(stride, "stride"), _pair(dilation, "dilation")
        begin, size = _padding_and_output(input.shape, kernel, stride, padding, dilation)
        n, c, h, w = input.shape
        self.output = (n, weight.shape[0], *size)
        self.format = _format_of(input)
        self.device, self.dtype = input.device, input.dtype
        self.index = -1 if input.device.type == "cpu" else input.device.index
        p = self.problem = Problem()
        p.batch, p.in_channels, p.out_channels = n, c, weight.shape[0]
        p.in_[:], p.out[:], p.kernel[:] = (h, w), size, kernel
        p.stride[:], p.padding[:], p.dilation[:] = stride, begin, dilation
        p.input_strides[:] = input.stride()
        p.output_strides[:] = self.new_output().stride()
        p.grad_input_strides[:] = self.new_grad_input("meta").stride()
        p.dtype, p.device = DTYPES[input.dtype], self.index
        self.reference = ctypes.byref(p)
        self.workspaces = {}

    def new_output(self, device="meta"):
        return torch.empty(self.output, dtype=self.dtype, device=device, memory_format=self.format)

    def new_grad_input(self, device):
        p = self.problem
        shape = (p.batch, p.in_channels, p.in_[0], p.in_[1])
        return torch.empty(shape, dtype=self.dtype, device=device, memory_format=self.format)

    def stream(self):
        return None if self.index < 0 else _current_stream(self.index)

    def workspace_bytes(self, addresses, stream):
        """`addresses` as in lamella_torch_backward(). Those of PyTorch's own memory are aligned; views may not be."""
        key = tuple(address and (address & 15 or 16) for address in addresses)
        bytes_ = self.workspaces.get(key)
        if bytes_ is None:
            out = ctypes.c_int64()
            check(_workspace(self.reference, *addresses, stream, ctypes.byref(out)))
            bytes_ = self.workspaces[key] = out.value
        return bytes_


if hasattr(torch._C, "_cuda_getCurrentRawStream"):
    _current_stream = torch._C._cuda_getCurrentRawStream
else:

    def _current_stream(index):
        return torch.cuda.current_stream(index).cuda_stream


_plans = {}


def _plan_of(input, weight, bias, stride, padding, dilation):
    """For an input and a weight that are as kernels want them."""
    key = (
        input.shape,
        input.stride(),
        input.dtype,
        input.device,
        weight.shape,
        weight.dtype,
        weight.device,
        None if bias is None else (bias.shape, bias.dtype, bias.device),
        stride,
        padding,
        dilation,
    )
    plan = _plans.get(key)
    if plan is None:
        plan = _Plan(input, weight, bias, stride, padding, dilation)
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        _plans[key] = plan
    return plan


def _run_forward(input, weight, bias, stride, padding, dilation):
    """The plan, input and weight as the kernels read them, and the output."""
    if input.dim() == 4:
        input = _readable(input)
    weight = weight.contiguous()
    if bias is not None:
        bias = bias.contiguous()
    plan = _plan_of(input, weight, bias, stride, padding, dilation)
    output = plan.new_output(plan.device)
    check(
        _forward(
            plan.reference,
            input.data_ptr(),
            weight.data_ptr(),
            None if bias is None else bias.data_ptr(),
            output.data_ptr(),
            plan.stream(),
        )
    )
    return plan, input, weight, output


def _run_backward(plan, grad, input, weight, needs):
    """The gradients of input, weight and bias, as far as they are needed."""
    grad = grad.contiguous(memory_format=plan.format)
    p = plan.problem
    grad_input = plan.new_grad_input(plan.device) if needs[0] else None
    grad_weight = grad_bias = None
    if needs[1]:
        shape = (p.out_channels, 1, p.kernel[0], p.kernel[1])
        grad_weight = torch.empty(shape, dtype=plan.dtype, device=plan.device)
    if needs[2]:
        grad_bias = torch.empty(p.out_channels, dtype=plan.dtype, device=plan.device)
    addresses = [t if t is None else t.data_ptr() for t in (grad, input, weight, grad_input, grad_weight, grad_bias)]
    stream = plan.stream()
    bytes_ = plan.workspace_bytes(addresses, stream) if needs[1] or needs[2] else 0
    # Of PyTorch's memory for this stream: given back when this returns, and used by others only after this work.
    workspace = torch.empty(bytes_, dtype=torch.uint8, device=plan.device) if bytes_ else None
    check(_backward(plan.reference, *addresses, stream, workspace.data_ptr() if bytes_ else None, bytes_))
    return grad_input, grad_weight, grad_bias


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, weight, bias, stride, padding, dilation):
        plan, input, weight, output = _run_forward(input, weight, bias, stride, padding, dilation)
        needs = ctx.needs_input_grad
        ctx.plan = plan
        weighs = needs[1] or needs[2]
        ctx.save_for_backward(input if weighs else None, weight if needs[0] else None)
        return output

    @staticmethod
    def backward(ctx, grad):
        input, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # create_graph
            return (*_Gradient.apply(grad, input, weight, ctx.plan, needs), None, None, None)
        return (*_run_backward(ctx.plan, grad, input, weight, needs), None, None, None)


class _Gradient(torch.autograd.Function):
    """The gradient where it is to be differentiated itself, which it cannot be."""

    @staticmethod
    def forward(ctx, grad, input, weight, plan, needs):
        return _run_backward(plan, grad, input, weight, needs)

    @staticmethod
    def backward(ctx, *grads):
        raise RuntimeError(f"{NAME} has no second derivative; torch.nn.functional.conv2d has")


# For PyTorch's compiler, which must not look inside: since PyTorch 2.4.
if hasattr(torch.library, "custom_op"):

    def _numbers(padding):
        """A padding as the operators take it: numbers, or none for 'same'."""
        if isinstance(padding, str):
            return [] if padding == "same" else [0, 0]
        return list(_pair(padding, "padding"))

    def _options(stride, padding, dilation):
        return tuple(stride), tuple(padding) if padding else "same", tuple(dilation)

    @torch.library.custom_op("lamella_torch::depthwise_conv2d", mutates_args=())
    def _operator(
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: Optional[torch.Tensor],
        stride: List[int],
        padding: List[int],
        dilation: List[int],
    ) -> torch.Tensor:
        return _run_forward(input, weight, bias, *_options(stride, padding, dilation))[3]

    @_operator.register_fake
    def _(input, weight, bias, stride, padding, dilation):
        _check_operands(input, weight, bias)
        stride, padding, dilation = _options(stride, padding, dilation)
        _, size = _padding_and_output(input.shape, weight.shape[2:], stride, padding, dilation)
        output = input.new_empty((input.shape[0], weight.shape[0], *size))
        return output.contiguous(memory_format=_format_of(_readable(input)))

    @torch.library.custom_op("lamella_torch::depthwise_conv2d_backward", mutates_args=())
    def _gradient_operator(
        grad: torch.Tensor,
        input: torch.Tensor,
        weight: torch.Tensor,
        stride: List[int],
        padding: List[int],
        dilation: List[int],
        needs: List[bool],
    ) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        input, weight = _readable(input), weight.contiguous()
        plan = _plan_of(input, weight, None, *_options(stride, padding, dilation))
        gradients = _run_backward(plan, grad, input, weight, needs)
        return tuple(input.new_empty(0) if g is None else g for g in gradients)

    @_gradient_operator.register_fake
    def _(grad, input, weight, stride, padding, dilation, needs):
        return (
            input.new_empty(input.shape).contiguous(memory_format=_format_of(_readable(input)))
            if needs[0]
            else input.new_empty(0),
            weight.new_empty(weight.shape) if needs[1] else input.new_empty(0),
            weight.new_empty(weight.shape[0]) if needs[2] else input.new_empty(0),
        )

    def _save(ctx, inputs, output):
        input, weight, _, ctx.stride, ctx.padding, ctx.dilation = inputs
        ctx.save_for_backward(input, weight)

    def _differentiate(ctx, grad):
        needs = list(ctx.needs_input_grad[:3])
        gradients = _gradient_operator(grad, *ctx.saved_tensors, ctx.stride, ctx.padding, ctx.dilation, needs)
        return (*(g if need else None for g, need in zip(gradients, needs)), None, None, None)

    _operator.register_autograd(_differentiate, setup_context=_save)
    _is_compiling = torch.compiler.is_compiling
else:

    def _is_compiling():
        return False


def _cast_for_autocast(*tensors):
    """The tensors as torch.nn.functional.conv2d gets them under autocast."""
    device = tensors[0].device.type
    if _autocast_by_device:
        if not torch.is_autocast_enabled(device):
            return tensors
        dtype = torch.get_autocast_dtype(device)
    elif device == "cuda" and torch.is_autocast_enabled():
        dtype = torch.get_autocast_gpu_dtype()
    elif device == "cpu" and torch.is_autocast_cpu_enabled():
        dtype = torch.get_autocast_cpu_dtype()
    else:
        return tensors
    return tuple(
        t.to(dtype) if t is not None and t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors
    )


_autocast_by_device = hasattr(torch, "get_autocast_dtype")


def depthwise_conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1):
    """`torch.nn.functional.conv2d(input, weight, bias, stride, padding, dilation, groups=C)`.

    `input` is [N,C,H,W] or [C,H,W], `weight` [C*m,1,kh,kw], `bias` [C*m]; float32, float64, bfloat16 or float16, on the CPU or
    an NVIDIA GPU, where the work goes to the current stream. `stride` and `dilation` are a number or one for height and one
    for width; `padding`, too, or 'valid' or 'same'. The result has the input's memory format. Under autocast operands are
    cast as conv2d's are. Differentiable once. Raises RuntimeError or ValueError where something does not fit.
    """
    input, weight, bias = _cast_for_autocast(input, weight, bias)
    if input.dim() == 3:
        return depthwise_conv2d(input.unsqueeze(0), weight, bias, stride, padding, dilation).squeeze(0)
    if _is_compiling():
        return _operator(
            input,
            weight,
            bias,
            list(_pair(stride, "stride")),
            _numbers(padding),
            list(_pair(dilation, "dilation")),
        )
    if not isinstance(stride, (int, tuple)):
        stride = tuple(stride)
    if not isinstance(padding, (int, tuple, str)):
        padding = tuple(padding)
    if not isinstance(dilation, (int, tuple)):
        dilation = tuple(dilation)
    if torch.is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return _DepthwiseConv2d.apply(input, weight, bias, stride, padding, dilation)
    return _run_forward(input, weight, bias, stride, padding, dilation)[3]
