#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "lamella/core/export.h"

namespace lamella {

/// Base of every exception Lamella throws. The message names the operator, every shape, type and device
/// concerned, and what would be right.
class LAMELLA_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A shape, stride, size, axis or option that does not fit.
class LAMELLA_API ShapeError : public Error {
 public:
  using Error::Error;
};

/// An element type that an operator does not take, or two that do not go together.
class LAMELLA_API DTypeError : public Error {
 public:
  using Error::Error;
};

/// A device that is absent, or tensors on different devices in one operator.
class LAMELLA_API DeviceError : public Error {
 public:
  using Error::Error;
};

/// A file or stream that is missing, truncated, corrupt or cannot be written. Names the path.
class LAMELLA_API IoError : public Error {
 public:
  using Error::Error;
};

/// Not enough device memory, after the cache was given back, and once more after waiting for freed memory
/// that other streams still used. Sizes are in bytes.
class LAMELLA_API OutOfMemoryError : public Error {
 public:
  /// What the allocator knew when it gave up.
  struct Report {
    std::size_t requested = 0;  ///< size of the request that failed
    std::size_t in_use = 0;     ///< held by live tensors
    std::size_t cached = 0;     ///< held by the cache, unused
    std::size_t peak = 0;       ///< highest in_use so far
    std::size_t capacity = 0;   ///< memory of the device, or the limit set on it
  };
  /// A message and the numbers in it.
  OutOfMemoryError(const std::string& message, const Report& report) : Error(message), report_(report) {}
  /// The numbers in the message.
  const Report& report() const { return report_; }

 private:
  Report report_;
};

}  // namespace lamella
