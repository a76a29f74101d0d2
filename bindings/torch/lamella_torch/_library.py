"""The shared library with Lamella's kernels, through ctypes."""

import ctypes
import os
import pathlib

import torch

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


class Problem(ctypes.Structure):
    """LamellaTorchProblem of lamella_torch.cpp."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in ("batch", "in_channels", "out_channels")]
        + [(name, ctypes.c_int64 * 2) for name in ("in_", "out", "kernel", "stride", "padding", "dilation")]
        + [(name, ctypes.c_int64 * 4) for name in ("input_strides", "output_strides", "grad_input_strides")]
        + [(name, ctypes.c_int32) for name in ("dtype", "device")]
    )


def _find_compiler():
    """Loads the run-time compiler that PyTorch's packages bring, for kernels to be compiled with where the system has
    none. The library looks for it by name, and takes one that is loaded already."""
    if torch.version.cuda is None:
        return
    name = "libnvrtc.so." + torch.version.cuda.split(".")[0]
    try:
        ctypes.CDLL(name)
        return
    except OSError:
        pass
    nvidia = pathlib.Path(torch.__file__).parent.parent / "nvidia"
    for found in sorted(nvidia.glob("*/lib/" + name)):
        try:
            ctypes.CDLL(str(found))
            return
        except OSError:
            pass


def _load():
    path = os.environ.get("LAMELLA_TORCH_LIBRARY") or str(pathlib.Path(__file__).parent / "liblamella_torch.so")
    if not os.path.exists(path):
        raise ImportError(
            f"lamella_torch: there is no {path}; build it with ./dev torch (or -DLAMELLA_BUILD_TORCH_BINDING=ON), or say "
            "in LAMELLA_TORCH_LIBRARY where it is"
        )
    _find_compiler()
    library = ctypes.CDLL(path)
    address = ctypes.c_void_p
    problem = ctypes.POINTER(Problem)
    library.lamella_torch_version.restype = ctypes.c_char_p
    library.lamella_torch_problem_bytes.restype = ctypes.c_size_t
    for function, arguments in (
        (library.lamella_torch_forward, [problem] + [address] * 5),
        (library.lamella_torch_workspace, [problem] + [address] * 7 + [ctypes.POINTER(ctypes.c_int64)]),
        (library.lamella_torch_backward, [problem] + [address] * 8 + [ctypes.c_int64]),
    ):
        function.argtypes = arguments
        function.restype = ctypes.c_char_p
    if library.lamella_torch_problem_bytes() != ctypes.sizeof(Problem):
        raise ImportError(f"lamella_torch: {path} is of another version than the Python files beside it; build it anew")
    return library


library = _load()


def check(error):
    """Raises RuntimeError with what a function of the library says went wrong."""
    if error is not None:
        raise RuntimeError(error.decode(errors="replace"))
