#include "lamella/core/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/allocator.h"
#include "lamella/core/error.h"

namespace lamella {
namespace {

TEST(DeviceTest, parses_and_prints) {
  EXPECT_EQ(Device("cpu"), Device::cpu());
  EXPECT_EQ(Device("cuda"), Device::cuda(0));
  EXPECT_EQ(Device("cuda:0"), Device::cuda(0));
  EXPECT_EQ(Device("cuda:13"), Device::cuda(13));
  EXPECT_EQ(Device("auto"), default_device());
  EXPECT_EQ(Device::cpu().to_string(), "cpu");
  EXPECT_EQ(Device::cuda(2).to_string(), "cuda:2");
  EXPECT_EQ(Device(Device::cuda(7).to_string()), Device::cuda(7));
  EXPECT_NE(Device::cuda(0), Device::cuda(1));
  EXPECT_NE(Device::cuda(0), Device::cpu());
}

TEST(DeviceTest, refuses_what_is_no_device) {
  for (const char* text : {"", "CPU", "gpu", "cpu:1", "cuda:", "cuda:-1", "cuda:1x", "cuda: 1", "cuda:+1",
                           "cuda1", "cuda:99999999999"}) {
    try {
      const Device device(text);
      ADD_FAILURE() << "accepted " << text;
    } catch (const DeviceError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("cuda:<index>")) << text;
    }
  }
}

TEST(DeviceTest, default_device_is_a_gpu_where_one_can_be_used) {
  if (default_device().is_cuda()) {
    EXPECT_EQ(default_device(), Device::cuda(0));
    EXPECT_GT(cuda_device_count(), 0);
    EXPECT_EQ(current_stream(Device::cuda()).device, Device::cuda(0));
  } else {  // there is none, or this build has no code for it
    EXPECT_EQ(default_device(), Device::cpu());
    EXPECT_THROW(current_stream(Device::cuda()), DeviceError);
  }
}

TEST(DeviceTest, cpu_stream_is_the_default_queue) {
  EXPECT_EQ(current_stream(Device::cpu()), (Stream{Device::cpu(), nullptr}));
}

TEST(DeviceTest, an_absent_gpu_is_named) {
  const Device absent = Device::cuda(cuda_device_count());
  try {
    detail::allocator_of(absent);
    ADD_FAILURE() << "no error";
  } catch (const DeviceError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(absent.to_string()));
    EXPECT_THAT(error.what(), testing::HasSubstr("is not available"));
  }
  EXPECT_THROW(current_stream(absent), DeviceError);
  EXPECT_THROW(detail::allocator_of(Device(DeviceType::Cpu, 1)), DeviceError);
}

}  // namespace
}  // namespace lamella
