#include "autograd/record.h"
#include "core/check.h"
#include "core/cuda_backend.h"
#include "core/profiling.h"
#include "lamella/tensor/create.h"
#include "tensor/dispatch.h"
#include "tensor/kernels/copy.h"
#include "tensor/overlap.h"

namespace lamella {

using detail::GradientContext;
using detail::GradientWrite;
using detail::Output;
using detail::read;

namespace {

/// A new dense tensor with the numbers of `x`; its gradient goes back in the type of `x`.
Tensor copy_of(const char* op, const Tensor& x, DType dtype, MemoryFormat format) {
  const Output y(x.shape(), dtype, x.device(), format);
  LAMELLA_KERNEL(x.device(), copy(read(x), y.write(), GradientWrite::Overwrite));
  if (!is_floating(dtype)) return detail::without_gradient(op, y);
  const DType from_dtype = x.dtype();
  return detail::record(
      op, {x}, y, [from_dtype](GradientContext& context) { context.add(0, context.grad().to(from_dtype)); });
}

void check_writable(const char* op, const Tensor& tensor) {
  detail::check_in_place(op, tensor);
  LAMELLA_CHECK(Error, !detail::repeats_elements(tensor), op, ": ", tensor.describe(), " with strides ",
                tensor.strides().to_string(),
                " holds the same element several times; clone() gives a tensor of its own");
}

}  // namespace

Tensor Tensor::to(Device device, bool non_blocking) const {
  detail::check_defined("to", "tensor", *this);
  if (device == this->device()) return *this;
  detail::allocator_of(device, "to");  // says what is missing
  const Tensor dense = contiguous(memory_format());
  const Device from_device = this->device();
  const Output y(shape(), dtype(), device, memory_format());
  const auto bytes = static_cast<std::size_t>(numel()) * size_of(dtype());
  const detail::profiling::KernelScope call_in_profile(device.is_cuda() ? device : from_device,
                                                       device.is_cuda() ? "copy_to_gpu" : "copy_to_cpu");
  if (non_blocking && dense.is_pinned()) {
    detail::cuda::copy_pinned_bytes(y.write().data, device, read(dense).data, bytes);
    dense.record_stream(current_stream(device));
  } else {
    detail::cuda::copy_bytes(y.write().data, device, read(dense).data, from_device, bytes);
  }
  if (!is_floating(dtype())) return detail::without_gradient("to", y);
  return detail::record("to", {dense}, y, [from_device](GradientContext& context) {
    context.add(0, context.grad().to(from_device));
  });
}

Tensor Tensor::pin_memory() const {
  detail::check_defined("pin_memory", "tensor", *this);
  LAMELLA_CHECK(DeviceError, device().is_cpu(), "pin_memory: ", describe(), " is not on the CPU");
  if (is_pinned()) return *this;
  Tensor pinned = detail::allocate(shape(), dtype(), Device::cpu(), memory_format(), true);
  return pinned.copy_(*this);
}

bool Tensor::is_pinned() const {
  detail::check_defined("is_pinned", "tensor", *this);
  return impl_->storage->pinned;
}

void Tensor::record_stream(Stream stream) const {
  detail::check_defined("record_stream", "tensor", *this);
  detail::Storage& storage = *impl_->storage;
  if (!stream.device.is_cuda() || stream == storage.stream) return;
  if (storage.device.is_cuda() || storage.pinned) storage.allocator.record_stream(storage.block, stream);
  // What a pending tensor is computed from, and the result.
  if (!impl_->pending) return;
  detail::Pending& pending = *impl_->pending;
  for (const Tensor& factor : {pending.scale, pending.shift})
    if (factor.defined()) factor.record_stream(stream);
  const std::lock_guard lock(pending.mutex);
  if (pending.applied && !(stream == pending.applied->stream))
    pending.applied->allocator.record_stream(pending.applied->block, stream);
}

Tensor Tensor::to(DType dtype) const {
  detail::check_defined("to", "tensor", *this);
  if (dtype == this->dtype()) return *this;
  return copy_of("to", *this, dtype, memory_format());
}

Tensor Tensor::contiguous(MemoryFormat format) const {
  detail::check_defined("contiguous", "tensor", *this);
  if (is_contiguous(format)) {
    if (dim() != 4 || memory_format() == format) return *this;
    // One channel or one pixel: the memory is right for both formats, the strides shall say which is meant.
    if (format == MemoryFormat::Contiguous) return permute({0, 2, 3, 1}).reshape(shape());
    return reshape({size(0), size(2), size(3), size(1)}).permute({0, 3, 1, 2});
  }
  return copy_of("contiguous", *this, dtype(), format);
}

Tensor Tensor::clone() const {
  detail::check_defined("clone", "tensor", *this);
  return copy_of("clone", *this, dtype(), memory_format());
}

Tensor& Tensor::fill_(double value) {
  check_writable("fill_", *this);
  LAMELLA_KERNEL(device(), fill(detail::write(*this, "fill_"), value));
  return *this;
}

Tensor& Tensor::copy_(const Tensor& source) {
  check_writable("copy_", *this);
  detail::check_defined("copy_", "source", source);
  Tensor from = source.detach();
  if (from.shape() != shape()) {
    LAMELLA_CHECK(ShapeError, broadcast_shapes("copy_", from.shape(), shape()) == shape(), "copy_: source ",
                  source.describe(), " does not broadcast to ", describe());
    from = from.expand(shape());
  }
  // Overlapping memory would be read after it was written.
  if (detail::TensorDoor::impl(from).storage == detail::TensorDoor::impl(*this).storage) from = from.clone();
  from = from.to(device());
  LAMELLA_KERNEL(device(), copy(read(from), detail::write(*this, "copy_"), GradientWrite::Overwrite));
  return *this;
}

}  // namespace lamella
