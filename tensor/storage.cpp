#include <limits>

#include "core/check.h"
#include "core/cuda_backend.h"
#include "core/profiling.h"
#include "tensor/door.h"

namespace lamella::detail {

Storage::Storage(std::size_t bytes, Device device, bool pinned)
    : device(device),
      pinned(pinned),
      allocator(pinned ? cuda::pinned_allocator() : allocator_of(device, "empty")),
      stream(current_stream(device)) {
  block = allocator.allocate(bytes, stream);
}

Storage::~Storage() { allocator.deallocate(block, stream); }

Tensor allocate(const Shape& shape, DType dtype, Device device, MemoryFormat format, bool pinned) {
  std::int64_t elements = 1;
  for (const std::int64_t size : shape) {
    LAMELLA_CHECK(ShapeError, size >= 0, "empty: negative size in ", shape.to_string());
    LAMELLA_CHECK(ShapeError, !__builtin_mul_overflow(elements, size, &elements),
                  "empty: ", shape.to_string(), " has more elements than 64 bits count");
  }
  LAMELLA_CHECK(ShapeError, elements <= std::numeric_limits<std::int64_t>::max() / 16,
                "empty: ", shape.to_string(), " has more bytes than 64 bits count");
  auto impl = std::make_shared<TensorImpl>();
  impl->shape = shape;
  impl->strides = dense_strides(shape, format);
  impl->dtype = dtype;
  impl->storage =
      std::make_shared<Storage>(static_cast<std::size_t>(elements) * size_of(dtype), device, pinned);
  if (profiling::on())
    profiling::block_is_tensor(impl->storage->block.data, shape.begin(), shape.size(), dtype);
  return TensorDoor::wrap(std::move(impl));
}

Tensor alias(const Tensor& tensor) {
  const TensorImpl& from = TensorDoor::impl(tensor);
  auto impl = std::make_shared<TensorImpl>();
  impl->storage = from.storage;
  impl->pending = from.pending;
  impl->shape = from.shape;
  impl->strides = from.strides;
  impl->offset = from.offset;
  impl->dtype = from.dtype;
  return TensorDoor::wrap(std::move(impl));
}

}  // namespace lamella::detail
