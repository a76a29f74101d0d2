#include "layers/squeeze_excite/squeeze_excite.h"

#include "core/profiling_bytes.h"
#include "layers/back_through.h"
#include "layers/dense.h"
#include "layers/squeeze_excite/kernels.h"
#include "tensor/dispatch.h"

namespace lamella::detail {

namespace {

/// Kernels move packets.
constexpr std::uintptr_t kPacket = 16;
bool begins_at_packet(const void* data) { return reinterpret_cast<std::uintptr_t>(data) % kPacket == 0; }

/// Undefined stays so.
Tensor packed(const Tensor& x, MemoryFormat format) {
  if (!x.defined()) return x;
  const Tensor dense = x.contiguous(format);
  const profiling::BytesApart only_a_look;
  return begins_at_packet(read(dense).data) ? dense : dense.clone();
}

/// What made the gate, and how, once it is there.
struct GateOf {
  Saved numbers;
  Gate f = Gate::Plain;
};

/// The gradient of x from those of the means and of the result, where there are any: `grad` has not met the
/// gate.
void input_gradient(GradientContext& context, const Tensor& x, const Tensor& grad, const GateOf& of,
                    const Tensor& grad_means) {
  const Tensor gate = of.numbers.get(), means = packed(grad_means, MemoryFormat::Contiguous);
  const MemoryFormat format = x.memory_format();
  const Tensor dense = gate.defined() ? packed(grad, format) : Tensor();
  DenseTarget dx(context, 0, format);
  if (!dx) return;
  TensorView to = dx.view();
  GradientWrite how = dx.write();
  Tensor apart;  // where a user's memory begins elsewhere
  if (!begins_at_packet(to.data)) {
    apart = allocate(x.shape(), x.dtype(), x.device(), format);
    to = write(apart, "backward");
    how = GradientWrite::Overwrite;
  }
  const bool with_sums = may_leave_sums(context, 0, x, dx.write());
  LeftParts sums(x.device(), x.size(1));
  const auto view = [](const Tensor& tensor) { return tensor.defined() ? read(tensor) : ConstTensorView{}; };
  LAMELLA_KERNEL(x.device(), squeeze_backward(view(dense), view(gate), of.f, view(means), read_pending(x), to,
                                              how, with_sums ? &sums : nullptr));
  if (apart.defined()) LAMELLA_KERNEL(x.device(), copy(read(apart), dx.view(), dx.write()));
  if (with_sums) context.leave_sums(0, sums.tensor());
  dx.finish();
}

Output means_of(const Tensor& x, MemoryFormat format) {
  Output means({x.size(0), x.size(1), 1, 1}, x.dtype(), x.device(), format);
  if (is_pending(x)) count_folded();
  LAMELLA_KERNEL(x.device(), squeeze_forward(read_pending(x), means.write()));
  return means;
}

}  // namespace

bool can_squeeze(const Tensor& x) {
  if (!fusion_enabled() || !x.defined() || !x.device().is_cuda() || x.dim() != 4 || x.numel() == 0 ||
      !is_floating(x.dtype()) || x.dtype() == DType::Float64 || !x.is_contiguous(MemoryFormat::ChannelsLast))
    return false;
  const profiling::BytesApart only_a_look;
  const auto bytes = static_cast<std::uintptr_t>(x.size(1)) * size_of(x.dtype());
  return bytes % kPacket == 0 && begins_at_packet(read_pending(x).stored.data);
}

// One operator in two: what comes from both the means and the result meets in squeeze's gradient, which
// knows the gate, so that x's gradient needs no sum of two.

struct Squeezed::Gated : GateOf {};

Squeezed squeeze(const Tensor& x) {
  const Output means = means_of(x, MemoryFormat::Contiguous);
  auto gate = std::make_shared<Squeezed::Gated>();
  const Tensors made = record_all("squeeze", {x}, {means, Output::of(alias(x))},
                                  [x = Saved(x), gate](GradientContext& context) {
                                    input_gradient(context, x.get(), context.grad(1), *gate, context.grad(0));
                                  });
  return {made[0], made[1], std::move(gate)};
}

Tensor excite(const Squeezed& squeezed, const Tensor& given, Gate f) {
  const Tensor& x = squeezed.x;
  const Tensor gate = packed(given, MemoryFormat::Contiguous);
  const Output y = Output::like(x);
  LAMELLA_KERNEL(x.device(), excite_forward(read_pending(x), read(gate), f, y.write()));
  squeezed.gate->numbers = Saved::when(wants_gradient(x), gate);
  squeezed.gate->f = f;
  return record("excite", {x, gate}, y,
                [x = Saved::when(wants_gradient(gate), x), gate = Saved::when(wants_gradient(gate), gate),
                 f](GradientContext& context) {
                  const Tensor grad = context.grad();
                  if (context.needs(1)) {
                    const Tensor input = x.get(), dense = packed(grad, input.memory_format());
                    DenseTarget dgate(context, 1, MemoryFormat::Contiguous);
                    LAMELLA_KERNEL(grad.device(),
                                   excite_backward(read(dense), read_pending(input), read(gate.get()), f,
                                                   dgate.view(), dgate.write()));
                    dgate.finish();
                  }
                  context.add(0, grad);
                });
}

Tensor plane_means(const char* op, const Tensor& x) {
  return record(op, {x}, means_of(x, x.memory_format()), [x = Saved(x)](GradientContext& context) {
    input_gradient(context, x.get(), {}, {}, context.grad());
  });
}

}  // namespace lamella::detail
