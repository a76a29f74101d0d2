#pragma once

#include <cstdint>

#include "core/allocator.h"
#include "lamella/core/device.h"

/// What the core asks of the CUDA backend. A build without CUDA compiles cuda_backend_stub.cpp: no devices,
/// and a DeviceError from whatever needs one.
namespace lamella::detail::cuda {

int device_count();
/// "no", or the toolkit's version.
const char* version();
Stream current_stream(Device device);
Allocator& allocator(Device device);
/// Device memory holding the random step, see next_random_key().
const std::uint64_t* random_step(Device device);
/// Brings every device's random step to `step`.
void set_random_step(std::uint64_t step);

}  // namespace lamella::detail::cuda
