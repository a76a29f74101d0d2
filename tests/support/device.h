#pragma once

#include <gtest/gtest.h>

#include <string>

#include "lamella/core/device.h"
#include "lamella/core/error.h"

/// The GPU's tests compile some files anew with another device.
#ifndef LAMELLA_TEST_DEVICE
#define LAMELLA_TEST_DEVICE "cpu"
#endif

/// A test that needs a GPU begins with it.
#define LAMELLA_NEEDS_GPU() \
  if (!::lamella::default_device().is_cuda()) GTEST_SKIP() << ::lamella::test::why_no_gpu()

/// A test that needs test_device() begins with it.
#define LAMELLA_NEEDS_TEST_DEVICE() \
  if (::lamella::test::test_device().is_cuda()) LAMELLA_NEEDS_GPU()

namespace lamella::test {

/// Why default_device() is the CPU.
inline std::string why_no_gpu() {
  try {
    (void)current_stream(Device::cuda());
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "default_device() is the CPU, but cuda:0 can be used";
}

/// Where operators are tested.
inline Device test_device() { return Device(LAMELLA_TEST_DEVICE); }

}  // namespace lamella::test
