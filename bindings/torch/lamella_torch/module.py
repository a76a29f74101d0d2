"""The layer."""

import torch

from .functional import depthwise_conv2d


class DepthwiseConv2d(torch.nn.Conv2d):
    """`torch.nn.Conv2d` with `groups == in_channels`, computed by Lamella: the same arguments, defaults, initialisation,
    parameters and state_dict. `groups` may be left out; padding_mode is 'zeros'.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=None,
        bias=True,
        padding_mode="zeros",
        device=None,
        dtype=None,
    ):
        if groups is None:
            groups = in_channels
        if groups != in_channels:
            raise ValueError(
                f"DepthwiseConv2d: groups must equal in_channels, got groups={groups}, in_channels={in_channels}; "
                "for others there is torch.nn.Conv2d"
            )
        if padding_mode != "zeros":
            raise ValueError(
                f"DepthwiseConv2d: padding_mode must be 'zeros', got {padding_mode!r}; for others there is torch.nn.Conv2d"
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            device=device,
            dtype=dtype,
        )

    def _conv_forward(self, input, weight, bias):
        return depthwise_conv2d(input, weight, bias, self.stride, self.padding, self.dilation)


def convert(module):
    """Makes each depthwise `torch.nn.Conv2d` in `module`, itself included, a `DepthwiseConv2d`, in place: parameters, their
    names and hooks stay. Those with another padding_mode than 'zeros', or of a subclass, stay as they are. Returns `module`.
    """
    for layer in module.modules():
        if type(layer) is torch.nn.Conv2d and layer.groups == layer.in_channels and layer.padding_mode == "zeros":
            layer.__class__ = DepthwiseConv2d
    return module
