#pragma once

#include <cstdint>
#include <string>

#include "lamella/core/export.h"

namespace lamella {

/// Where a tensor's memory lives.
enum class DeviceType : std::uint8_t { Cpu, Cuda };

/// A device: the CPU, or one GPU by its CUDA index.
struct LAMELLA_API Device {
  DeviceType type = DeviceType::Cpu;  ///< CPU or GPU
  int index = 0;                      ///< the GPU's CUDA index; 0 for the CPU

  constexpr Device() = default;
  /// Whether there is such a device is not checked before it is used.
  constexpr Device(DeviceType type, int index) : type(type), index(index) {}
  /// Parses "cpu", "cuda", "cuda:1" or "auto" (see default_device()); throws DeviceError otherwise.
  explicit Device(const std::string& text);

  /// The CPU.
  static constexpr Device cpu() { return {DeviceType::Cpu, 0}; }
  /// GPU number `index`; see cuda_device_count().
  static constexpr Device cuda(int index = 0) { return {DeviceType::Cuda, index}; }

  /// True for the CPU.
  bool is_cpu() const { return type == DeviceType::Cpu; }
  /// True for a GPU.
  bool is_cuda() const { return type == DeviceType::Cuda; }
  /// "cpu" or "cuda:0".
  std::string to_string() const;
  /// Equal in type and index.
  friend bool operator==(const Device&, const Device&) = default;
};

/// Number of GPUs that CUDA finds, also those that this build has no code for: using one throws DeviceError.
/// 0 in a CPU-only build.
LAMELLA_API int cuda_device_count();
/// cuda:0 where there is one that this build can use, else cpu. Logs a warning about a GPU that it cannot
/// use.
LAMELLA_API Device default_device();
/// Why default_device() is not a GPU, such as "there is no NVIDIA driver"; empty where it is one.
LAMELLA_API std::string why_no_gpu();

/// An ordered queue of work on a device; `handle` is the backend's own (null: the default queue; always null
/// on the CPU, where work is done when the call returns).
struct Stream {
  Device device;           ///< where the work is done
  void* handle = nullptr;  ///< the backend's own; null: the default queue
  /// Equal in device and handle.
  friend bool operator==(const Stream&, const Stream&) = default;
};
/// The stream on which this thread issues its work for `device`. Throws DeviceError for a GPU that this build
/// or machine does not have.
LAMELLA_API Stream current_stream(Device device);

}  // namespace lamella
