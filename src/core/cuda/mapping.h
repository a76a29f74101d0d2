#pragma once

#include <cstddef>
#include <optional>

#include "lamella/core/device.h"

namespace lamella::detail::cuda {

/// The driver's functions that reserve addresses of a GPU and map memory to them. The GPU must be the current
/// one.
class Mapping {
 public:
  /// Nothing if the GPU or its driver cannot.
  static std::optional<Mapping> of(Device device);

  /// What all sizes must be multiples of.
  std::size_t chunk_bytes() const { return chunk_; }
  /// Null if refused.
  void* reserve(std::size_t bytes) const noexcept;
  void unreserve(void* data, std::size_t bytes) const noexcept;
  /// False if refused, for whatever reason.
  bool map(void* data, std::size_t bytes) const noexcept;
  /// Takes what one call of map() was given. Does not wait for work that uses it.
  void unmap(void* data, std::size_t bytes) const noexcept;

 private:
  Mapping() = default;
  int device_ = 0;
  std::size_t chunk_ = 0;
  bool is_exportable_ = false, is_for_rdma_ = false;
};

}  // namespace lamella::detail::cuda
