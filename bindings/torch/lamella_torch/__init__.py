"""Lamella's depthwise convolution for PyTorch: `DepthwiseConv2d` in place of `torch.nn.Conv2d(C, C * m, k, groups=C)`.

    layer = lamella_torch.DepthwiseConv2d(64, 64, 3, padding=1, device="cuda")   # or
    model = lamella_torch.convert(model)
"""

from ._library import library as _library
from .functional import depthwise_conv2d
from .module import DepthwiseConv2d, convert

__all__ = ["DepthwiseConv2d", "convert", "depthwise_conv2d"]
__version__ = _library.lamella_torch_version().decode()
