#pragma once

#include <gtest/gtest.h>

#include "lamella/core/device.h"

/// The GPU's tests compile some files anew with another device.
#ifndef LAMELLA_TEST_DEVICE
#define LAMELLA_TEST_DEVICE "cpu"
#endif

/// A test that needs a GPU begins with it.
#define LAMELLA_NEEDS_GPU() \
  if (::lamella::cuda_device_count() == 0) GTEST_SKIP() << "no NVIDIA GPU that this build can use"

/// A test that needs test_device() begins with it.
#define LAMELLA_NEEDS_TEST_DEVICE() \
  if (::lamella::test::test_device().is_cuda()) LAMELLA_NEEDS_GPU()

namespace lamella::test {

/// Where operators are tested.
inline Device test_device() { return Device(LAMELLA_TEST_DEVICE); }

}  // namespace lamella::test
