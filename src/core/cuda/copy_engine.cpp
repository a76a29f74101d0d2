#include "core/cuda/copy_engine.h"

#include <cuda_runtime_api.h>

#include "core/cuda/driver.h"
#include "core/environment.h"

namespace lamella::detail::cuda {
namespace {

/// The driver's cuTensorMapEncodeTiled, by the types of its arguments alone; null: the driver or GPU has no
/// copy engine.
using EncodeTiled = int (*)(void* map, int data_type, std::uint32_t rank, void* address,
                            const std::uint64_t* sizes, const std::uint64_t* strides,
                            const std::uint32_t* box, const std::uint32_t* steps, int interleave, int swizzle,
                            int promotion, int fill);
EncodeTiled encode_tiled() {
  static const auto found = reinterpret_cast<EncodeTiled>(driver_function("cuTensorMapEncodeTiled", 12000));
  return found;
}

}  // namespace

bool has_copy_engine(Device device) {
  static const bool wanted = !environment_says("LAMELLA_COPY_ENGINE", "0");
  int major = 0;
  return wanted && device.is_cuda() && encode_tiled() != nullptr &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index) == cudaSuccess &&
         major >= 9;
}

bool encode_map(const TensorBox& box, void* map) {
  constexpr int kInt64 = 5, kFloat16 = 6, kFloat32 = 7, kBFloat16 = 9, kNoInterleave = 0,
                kPromote128Bytes = 2, kFillZeros = 0;
  const bool is_half = box.dtype != DType::Float32 && !box.by_eight_bytes;
  // Of 128, 64 or 32 bytes.
  const std::uint32_t row = is_half ? box.extents[0] : 0;
  const int swizzle = row == 64 ? 3 : row == 32 ? 2 : row == 16 ? 1 : 0;
  const int type = box.by_eight_bytes            ? kInt64
                   : !is_half                    ? kFloat32
                   : box.dtype == DType::Float16 ? kFloat16
                                                 : kBFloat16;
  return encode_tiled()(map, type, TensorBox::kAxes, const_cast<void*>(box.data), box.sizes.data(),
                        box.strides.data(), box.extents.data(), box.steps.data(), kNoInterleave, swizzle,
                        kPromote128Bytes, kFillZeros) == 0;
}

}  // namespace lamella::detail::cuda
