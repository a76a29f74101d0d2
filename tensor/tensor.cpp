#include "lamella/tensor/tensor.h"

#include "autograd/node.h"
#include "core/check.h"
#include "core/profiling_bytes.h"
#include "lamella/tensor/create.h"
#include "tensor/dispatch.h"
#include "tensor/door.h"
#include "tensor/overlap.h"

namespace lamella {

namespace {

const detail::TensorImpl& impl_of(const char* what, const Tensor& tensor) {
  LAMELLA_CHECK(Error, tensor.defined(), what, ": the tensor is undefined");
  return detail::TensorDoor::impl(tensor);
}

bool lies_densely(const Shape& shape, const Strides& strides, MemoryFormat format) {
  if (shape.product() == 0) return true;
  const Strides dense = dense_strides(shape, format);
  for (int axis = 0; axis < shape.size(); ++axis)
    if (shape[axis] != 1 && strides[axis] != dense[axis]) return false;
  return true;
}

}  // namespace

namespace detail {

void throw_no_backend(Device device) {
  throw DeviceError(concat("this build of Lamella has no kernels for ", device.to_string()));
}

void check_defined(const char* op, const char* argument, const Tensor& tensor) {
  LAMELLA_CHECK(Error, tensor.defined(), op, ": ", argument, " is an undefined tensor");
}

void check_floating(const char* op, const char* argument, const Tensor& tensor) {
  check_defined(op, argument, tensor);
  LAMELLA_CHECK(DTypeError, is_floating(tensor.dtype()), op, ": ", argument,
                " must have a floating type, got ", tensor.describe());
}

void check_same_device(const char* op, const Tensor& a, const Tensor& b) {
  LAMELLA_CHECK(DeviceError, a.device() == b.device(), op, ": tensors on different devices, ", a.describe(),
                " and ", b.describe(), "; move one with to()");
}

void check_same_dtype(const char* op, const Tensor& a, const Tensor& b) {
  LAMELLA_CHECK(DTypeError, a.dtype() == b.dtype(), op, ": tensors of different types, ", a.describe(),
                " and ", b.describe(), "; convert one with to()");
}

}  // namespace detail

const Shape& Tensor::shape() const { return impl_of("shape", *this).shape; }
const Strides& Tensor::strides() const { return impl_of("strides", *this).strides; }
int Tensor::dim() const { return shape().size(); }
std::int64_t Tensor::size(int axis) const { return shape()[normalize_axis("size", axis, dim())]; }
std::int64_t Tensor::numel() const { return shape().product(); }
DType Tensor::dtype() const { return impl_of("dtype", *this).dtype; }
Device Tensor::device() const { return impl_of("device", *this).storage->device; }

bool Tensor::is_contiguous(MemoryFormat format) const {
  if (format == MemoryFormat::ChannelsLast && dim() != 4) return false;
  return lies_densely(shape(), strides(), format);
}

MemoryFormat Tensor::memory_format() const {
  if (dim() != 4 || !is_contiguous(MemoryFormat::ChannelsLast)) return MemoryFormat::Contiguous;
  // With one channel or one pixel the order is the same in both formats, but not the strides.
  if (is_contiguous() && strides() != dense_strides(shape(), MemoryFormat::ChannelsLast))
    return MemoryFormat::Contiguous;
  return strides() == dense_strides(shape()) ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast;
}

std::string Tensor::describe() const {
  if (!defined()) return "undefined";
  return detail::concat(shape().to_string(), ' ', name(dtype()), ' ', device().to_string(),
                        memory_format() == MemoryFormat::ChannelsLast ? " channels_last" : "");
}

const void* Tensor::raw_data(DType expected) const {
  LAMELLA_CHECK(DTypeError, dtype() == expected, "data: ", describe(), " read as ", name(expected));
  const detail::profiling::BytesApart no_kernel_reads_it;
  return detail::read(*this).data;
}

void* Tensor::raw_mutable_data(DType expected) {
  LAMELLA_CHECK(DTypeError, dtype() == expected, "mutable_data: ", describe(), " written as ",
                name(expected));
  detail::check_in_place("mutable_data", *this);
  const detail::profiling::BytesApart no_kernel_writes_it;
  return detail::write(*this, "mutable_data").data;
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor plain = detach().to(dtype_of<T>).to(Device::cpu()).contiguous();
  const T* begin = plain.template data<T>();
  return std::vector<T>(begin, begin + plain.numel());
}

template <class T>
T Tensor::item() const {
  LAMELLA_CHECK(ShapeError, numel() == 1, "item: ", describe(), " does not have exactly one element");
  return *detach().to(dtype_of<T>).to(Device::cpu()).template data<T>();
}

template std::vector<float> Tensor::to_vector<float>() const;
template std::vector<double> Tensor::to_vector<double>() const;
template std::vector<std::int64_t> Tensor::to_vector<std::int64_t>() const;
template std::vector<std::int32_t> Tensor::to_vector<std::int32_t>() const;
template std::vector<std::uint8_t> Tensor::to_vector<std::uint8_t>() const;
template float Tensor::item<float>() const;
template double Tensor::item<double>() const;
template std::int64_t Tensor::item<std::int64_t>() const;
template bool Tensor::item<bool>() const;

// ---- Gradient state ----

bool Tensor::requires_grad() const {
  const detail::TensorImpl& impl = impl_of("requires_grad", *this);
  return impl.requires_grad || impl.node != nullptr;
}

bool Tensor::is_leaf() const { return impl_of("is_leaf", *this).node == nullptr; }

Tensor& Tensor::set_requires_grad(bool on) {
  impl_of("set_requires_grad", *this);
  LAMELLA_CHECK(Error, is_leaf(), "set_requires_grad: ", describe(), " is the result of ", impl_->node->name,
                "; detach() it first");
  LAMELLA_CHECK(DTypeError, !on || is_floating(dtype()), "set_requires_grad: ", describe(),
                " is not floating");
  impl_->requires_grad = on;
  return *this;
}

Tensor Tensor::grad() const {
  const detail::TensorImpl& impl = impl_of("grad", *this);
  return impl.grad_stale ? Tensor() : impl.grad;
}

void Tensor::set_grad(const Tensor& gradient) {
  impl_of("set_grad", *this);
  if (gradient.defined()) {
    const auto both = [&] { return detail::concat("gradient ", gradient.describe(), " for ", describe()); };
    LAMELLA_CHECK(ShapeError, gradient.shape() == shape(), "set_grad: ", both(),
                  "; the shapes must be equal");
    LAMELLA_CHECK(DTypeError, gradient.dtype() == dtype(), "set_grad: ", both(),
                  "; the types must be equal, convert it with to()");
    LAMELLA_CHECK(DeviceError, gradient.device() == device(), "set_grad: ", both(),
                  "; the devices must be equal, move it with to()");
  }
  // Backward adds in place.
  impl_->grad = gradient.defined() && detail::repeats_elements(gradient) ? gradient.clone() : gradient;
  impl_->grad_stale = false;
}

void Tensor::zero_grad() {
  impl_of("zero_grad", *this);
  impl_->grad_stale = impl_->grad.defined();
}

void Tensor::retain_grad() {
  impl_of("retain_grad", *this);
  if (impl_->node) impl_->node->outputs[static_cast<std::size_t>(impl_->output)].retained = impl_;
}

void Tensor::register_hook(GradientHook hook) {
  LAMELLA_CHECK(Error, requires_grad(), "register_hook: ", describe(), " does not require a gradient");
  auto& hooks =
      impl_->node ? impl_->node->outputs[static_cast<std::size_t>(impl_->output)].hooks : impl_->hooks;
  hooks.push_back(std::move(hook));
}

Tensor Tensor::detach() const {
  impl_of("detach", *this);
  return detail::alias(*this);
}

}  // namespace lamella
