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

Squeezed squeeze(const Tensor& x) {
  const Output means({x.size(0), x.size(1), 1, 1}, x.dtype(), x.device());
  if (is_pending(x)) count_folded();
  LAMELLA_KERNEL(x.device(), squeeze_forward(read_pending(x), means.write()));
  auto gate = std::make_shared<Saved>();
  const Tensors made = record_all(
      "squeeze", {x}, {means, Output::of(alias(x))}, [x = Saved(x), gate](GradientContext& context) {
        const Tensor input = x.get(), factor = gate->get();
        const MemoryFormat format = input.memory_format();
        const Tensor grad_means = packed(context.grad(0), MemoryFormat::Contiguous),
                     grad = factor.defined() ? packed(context.grad(1), format) : Tensor();
        DenseTarget dx(context, 0, format);
        if (!dx) return;
        TensorView to = dx.view();
        GradientWrite how = dx.write();
        Tensor apart;  // where a user's memory begins elsewhere
        if (!begins_at_packet(to.data)) {
          apart = allocate(input.shape(), input.dtype(), input.device(), format);
          to = write(apart, "backward");
          how = GradientWrite::Overwrite;
        }
        const PendingView owing = read_pending(input);
        const bool with_sums = may_leave_sums(context, 0, input, dx.write());
        LeftParts sums(input.device(), input.size(1));
        const auto view = [](const Tensor& tensor) {
          return tensor.defined() ? read(tensor) : ConstTensorView{};
        };
        LAMELLA_KERNEL(input.device(), squeeze_backward(view(grad), view(factor), view(grad_means), owing, to,
                                                        how, with_sums ? &sums : nullptr));
        if (apart.defined()) LAMELLA_KERNEL(input.device(), copy(read(apart), dx.view(), dx.write()));
        if (with_sums) context.leave_sums(0, sums.tensor());
        dx.finish();
      });
  return {made[0], made[1], std::move(gate)};
}

Tensor excite(const Squeezed& squeezed, const Tensor& given) {
  const Tensor& x = squeezed.x;
  const Tensor gate = packed(given, MemoryFormat::Contiguous);
  const Output y = Output::like(x);
  LAMELLA_KERNEL(x.device(), excite_forward(read_pending(x), read(gate), y.write()));
  *squeezed.gate = Saved::when(wants_gradient(x), gate);
  return record("excite", {x, gate}, y, [x = Saved::when(wants_gradient(gate), x)](GradientContext& context) {
    const Tensor grad = context.grad();
    if (context.needs(1)) {
      const Tensor input = x.get(), dense = packed(grad, input.memory_format());
      DenseTarget dgate(context, 1, MemoryFormat::Contiguous);
      LAMELLA_KERNEL(grad.device(),
                     excite_backward(read(dense), read_pending(input), dgate.view(), dgate.write()));
      dgate.finish();
    }
    context.add(0, grad);
  });
}

}  // namespace lamella::detail
