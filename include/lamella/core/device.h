#pragma once

#include <cstdint>
#include <string>

#include "lamella/core/export.h"

namespace lamella {

/// Where a tensor's memory lives.
enum class DeviceType : std::uint8_t { Cpu, Cuda };

/// A device: the CPU, or one GPU by its CUDA index.
struct LAMELLA_API Device {
  DeviceType type = DeviceType::Cpu;
  int index = 0;

  constexpr Device() = default;
  constexpr Device(DeviceType type, int index) : type(type), index(index) {}
  /// Parses "cpu", "cuda", "cuda:1" or "auto" (see default_device()); throws DeviceError otherwise.
  explicit Device(const std::string& text);

  static constexpr Device cpu() { return {DeviceType::Cpu, 0}; }
  static constexpr Device cuda(int index = 0) { return {DeviceType::Cuda, index}; }

  bool is_cpu() const { return type == DeviceType::Cpu; }
  bool is_cuda() const { return type == DeviceType::Cuda; }
  /// "cpu" or "cuda:0".
  std::string to_string() const;
  friend bool operator==(const Device&, const Device&) = default;
};

/// Number of GPUs this build can use; 0 in a CPU-only build.
LAMELLA_API int cuda_device_count();
/// cuda:0 where there is one, else cpu.
LAMELLA_API Device default_device();

/// An ordered queue of work on a device; `handle` is the backend's own (null: the default queue; always null
/// on the CPU, where work is done when the call returns).
struct Stream {
  Device device;
  void* handle = nullptr;
  friend bool operator==(const Stream&, const Stream&) = default;
};
/// The stream on which this thread issues its work for `device`.
LAMELLA_API Stream current_stream(Device device);

}  // namespace lamella
