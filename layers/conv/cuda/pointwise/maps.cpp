#include "layers/conv/cuda/pointwise/maps.h"

#include <cuda_runtime_api.h>

#include <array>

#include "core/cuda/driver.h"
#include "core/environment.h"

namespace lamella::cuda::pointwise {
namespace {

using lamella::pointwise::TensorMap;

/// The driver's cuTensorMapEncodeTiled, by the types of its arguments alone; null: the driver or GPU has no
/// copy engine.
using EncodeTiled = int (*)(TensorMap* map, int data_type, std::uint32_t rank, void* address,
                            const std::uint64_t* sizes, const std::uint64_t* strides,
                            const std::uint32_t* box, const std::uint32_t* steps, int interleave, int swizzle,
                            int promotion, int fill);
EncodeTiled encode_tiled() {
  static const auto found =
      reinterpret_cast<EncodeTiled>(detail::cuda::driver_function("cuTensorMapEncodeTiled", 12000));
  return found;
}

}  // namespace

bool has_copy_engine(Device device) {
  static const bool wanted = !detail::environment_says("LAMELLA_COPY_ENGINE", "0");
  int major = 0;
  return wanted && device.is_cuda() && encode_tiled() != nullptr &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index) == cudaSuccess &&
         major >= 9;
}

bool describe(const void* data, DType dtype, std::int64_t rows, std::int64_t channels,
              const lamella::pointwise::BoxShape& box, TensorMap& map) {
  constexpr int kFloat16 = 6, kBFloat16 = 9, kNoInterleave = 0, kPromote128Bytes = 2, kFillZeros = 0;
  constexpr std::uint32_t kRank = 4, kMostRows = 256;
  constexpr std::uintptr_t kAligned = 16;
  if (rows % box.fold != 0) return false;
  rows /= box.fold, channels *= box.fold;
  const auto row = static_cast<std::uint64_t>(channels) * 2, all = row * static_cast<std::uint64_t>(rows);
  if (reinterpret_cast<std::uintptr_t>(data) % kAligned != 0 || row % kAligned != 0 ||
      all >= std::uint64_t{1} << 40)
    return false;
  const std::array<std::uint64_t, kRank> sizes{static_cast<std::uint64_t>(channels),
                                               static_cast<std::uint64_t>(rows), 1, 1};
  const std::array<std::uint64_t, kRank - 1> strides{row, all, all};
  const std::array<std::uint32_t, kRank> extents{static_cast<std::uint32_t>(box.channels),
                                                 static_cast<std::uint32_t>(box.rows), 1, 1};
  if (extents[1] > kMostRows) return false;
  const std::array<std::uint32_t, kRank> steps{1, 1, 1, 1};
  const int swizzle = box.channels == 64 ? 3 : box.channels == 32 ? 2 : 1;  // of 128, 64 or 32 bytes
  return encode_tiled()(&map, dtype == DType::Float16 ? kFloat16 : kBFloat16, kRank, const_cast<void*>(data),
                        sizes.data(), strides.data(), extents.data(), steps.data(), kNoInterleave, swizzle,
                        kPromote128Bytes, kFillZeros) == 0;
}

}  // namespace lamella::cuda::pointwise
