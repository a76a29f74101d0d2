#include "layers/conv/cuda/pointwise/maps.h"

#include "core/cuda/copy_engine.h"

namespace lamella::cuda::pointwise {

bool describe(const void* data, DType dtype, std::int64_t rows, std::int64_t channels,
              const lamella::pointwise::BoxShape& box, lamella::pointwise::TensorMap& map) {
  constexpr std::uint32_t kMostRows = 256;
  constexpr std::uintptr_t kAligned = 16;
  if (rows % box.fold != 0) return false;
  rows /= box.fold, channels *= box.fold;
  const auto row = static_cast<std::uint64_t>(channels) * 2, all = row * static_cast<std::uint64_t>(rows);
  if (reinterpret_cast<std::uintptr_t>(data) % kAligned != 0 || row % kAligned != 0 ||
      all >= std::uint64_t{1} << 40)
    return false;
  detail::cuda::TensorBox to{.data = data, .dtype = dtype};
  to.sizes = {static_cast<std::uint64_t>(channels), static_cast<std::uint64_t>(rows), 1, 1};
  to.strides = {row, all, all};
  to.extents = {static_cast<std::uint32_t>(box.channels), static_cast<std::uint32_t>(box.rows), 1, 1};
  if (to.extents[1] > kMostRows) return false;
  return detail::cuda::encode_map(to, &map);
}

}  // namespace lamella::cuda::pointwise
