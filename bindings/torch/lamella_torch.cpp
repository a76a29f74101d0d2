// Lamella's depthwise kernels for lamella_torch, which calls them through ctypes: plain numbers and
// addresses, so that one build serves every PyTorch.
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>

#include "lamella/core/version.h"
#include "lamella/kernels/depthwise_conv2d.h"

namespace {

namespace lm = lamella;
using lm::kernels::DepthwiseConv2d;

constexpr int kAxes = 4;

}  // namespace

extern "C" {

/// One geometry; lamella_torch/_library.py has the same fields in the same order. Weight and bias are dense.
struct LamellaTorchProblem {
  std::int64_t batch, in_channels, out_channels, in[2], out[2], kernel[2], stride[2], padding[2], dilation[2];
  /// Of the input, the output (and its gradient), the input's gradient, in elements.
  std::int64_t input_strides[kAxes], output_strides[kAxes], grad_input_strides[kAxes];
  std::int32_t dtype;   ///< 0: float32, 1: float64, 2: bfloat16, 3: float16
  std::int32_t device;  ///< CUDA's index; -1: the CPU
};

}  // extern "C"

namespace {

lm::Size2 pair(const std::int64_t (&values)[2]) { return {values[0], values[1]}; }
lm::Strides strides(const std::int64_t (&values)[kAxes]) { return lm::Strides(values); }

DepthwiseConv2d call_of(const LamellaTorchProblem& p, void* stream) {
  DepthwiseConv2d call;
  lm::Conv2dGeometry& g = call.geometry;
  g.batch = p.batch;
  g.in_channels = g.groups = p.in_channels;
  g.out_channels = p.out_channels;
  g.in = pair(p.in), g.out = pair(p.out), g.kernel = pair(p.kernel);
  g.stride = pair(p.stride), g.padding = pair(p.padding), g.dilation = pair(p.dilation);
  constexpr lm::DType kTypes[] = {lm::float32, lm::float64, lm::bfloat16, lm::float16};
  call.dtype = call.parameter_dtype = kTypes[p.dtype & 3];
  if (p.device >= 0) call.device = lm::Device::cuda(p.device);
  call.stream = stream;
  call.input.strides = strides(p.input_strides);
  call.output.strides = call.grad_output.strides = strides(p.output_strides);
  call.grad_input.strides = strides(p.grad_input_strides);
  return call;
}

/// Null, or what went wrong: valid until this thread's next call.
template <class Body>
const char* guarded(Body&& body) noexcept {
  static thread_local std::string message;
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

DepthwiseConv2d backward_call(const LamellaTorchProblem& problem, const void* grad_output, const void* input,
                              const void* weight, void* grad_input, void* grad_weight, void* grad_bias,
                              void* stream) {
  DepthwiseConv2d call = call_of(problem, stream);
  call.grad_output.data = grad_output;
  call.input.data = input;
  call.weight.data = weight;
  call.grad_input.data = grad_input;
  call.grad_weight.data = grad_weight;
  call.grad_bias.data = grad_bias;
  return call;
}

}  // namespace

#define LAMELLA_TORCH_API __attribute__((visibility("default")))

extern "C" {

LAMELLA_TORCH_API const char* lamella_torch_version() { return LAMELLA_VERSION; }

/// The size of a problem, which both sides must agree on.
LAMELLA_TORCH_API std::size_t lamella_torch_problem_bytes() { return sizeof(LamellaTorchProblem); }

LAMELLA_TORCH_API const char* lamella_torch_forward(const LamellaTorchProblem* problem, const void* input,
                                                    const void* weight, const void* bias, void* output,
                                                    void* stream) {
  return guarded([&] {
    DepthwiseConv2d call = call_of(*problem, stream);
    call.input.data = input;
    call.weight.data = weight;
    call.bias.data = bias;
    call.output.data = output;
    lm::kernels::depthwise_conv2d_forward(call);
  });
}

/// The bytes of workspace for lamella_torch_backward() with addresses that are null or aligned alike.
LAMELLA_TORCH_API const char* lamella_torch_workspace(const LamellaTorchProblem* problem,
                                                      const void* grad_output, const void* input,
                                                      const void* weight, void* grad_input, void* grad_weight,
                                                      void* grad_bias, void* stream, std::int64_t* bytes) {
  return guarded([&] {
    *bytes = lm::kernels::depthwise_conv2d_workspace_bytes(
        backward_call(*problem, grad_output, input, weight, grad_input, grad_weight, grad_bias, stream));
  });
}

/// Writes the gradients that are not null.
LAMELLA_TORCH_API const char* lamella_torch_backward(const LamellaTorchProblem* problem,
                                                     const void* grad_output, const void* input,
                                                     const void* weight, void* grad_input, void* grad_weight,
                                                     void* grad_bias, void* stream, void* workspace,
                                                     std::int64_t workspace_bytes) {
  return guarded([&] {
    DepthwiseConv2d call =
        backward_call(*problem, grad_output, input, weight, grad_input, grad_weight, grad_bias, stream);
    call.workspace = workspace;
    call.workspace_bytes = workspace_bytes;
    lm::kernels::depthwise_conv2d_backward(call);
  });
}

}  // extern "C"
