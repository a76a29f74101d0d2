#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <thread>

#include "core/profiling.h"
#include "core/profiling_bytes.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/layers/layers.h"
#include "lamella/layers/loss.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/combine.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "lamella/train/profile.h"
#include "tensor/dispatch.h"
#include "tensor/door.h"
#include "tests/support/temp_folder.h"

// What a profile counts beside kernels, and what becomes of it when something goes wrong.

namespace lamella::cpu {
void fails(const detail::ConstTensorView&) { throw Error("the kernel fails"); }
}  // namespace lamella::cpu

namespace lamella::train {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

constexpr ProfileOptions kQuick{.bandwidth = false};

/// Bytes of the calls of `op`, of all their kernels.
std::int64_t bytes_of(const Profile& profile, const std::string& op) {
  std::int64_t bytes = -1;
  for (const ProfiledKernel& kernel : profile.kernels())
    if (kernel.op == op) bytes = std::max<std::int64_t>(bytes, 0) + kernel.bytes;
  EXPECT_GE(bytes, 0) << "no " << op << " in\n" << profile.table();
  return bytes;
}

template <class Work>
std::string message(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(ProfileBytesTest, what_the_cpu_reads_itself_is_no_kernels) {
  Tensor large = ones({1000});
  const Tensor a = ones({10});
  const std::vector<float> numbers(500, 1.0F);
  Profile profile(Device::cpu(), kQuick);
  profile.start();
  EXPECT_EQ(large.data<float>()[0], 1);
  (void)(a + a);
  large.mutable_data<float>()[0] = 2;
  (void)(a - a);
  (void)from_vector(numbers, {500});
  (void)(a * a);
  (void)large.to_vector<float>();
  (void)(a / a);
  profile.step();
  profile.stop();
  for (const char* const op : {"add", "sub", "mul", "div"}) EXPECT_EQ(bytes_of(profile, op), 120) << op;
}

TEST(ProfileBytesTest, labels_that_are_checked_are_read_once) {
  const Tensor logits = ones({8, 4}), labels = full({8}, 1, {.dtype = int64});
  Profile profile(Device::cpu(), kQuick);
  profile.start();
  (void)cross_entropy(logits, labels);
  profile.step();
  profile.stop();
  // The logits, the labels, each row's logarithm of a sum, the divisor, and the loss.
  EXPECT_EQ(bytes_of(profile, "cross_entropy"), 8 * 4 * 4 + 8 * 8 + 8 * 8 + 8 + 4);
}

TEST(ProfileBytesTest, a_debt_takes_no_bytes_of_whoever_pays_it) {
  const NoGrad no_grad;
  const Tensor x = ones({1, 4, 2, 2}), scale = ones({4}), other = ones({100});
  Profile profile(Device::cpu(), kQuick);
  profile.start();
  const Tensor owing = detail::make_pending(x, scale, {}, detail::PendingActivation::Relu);
  detail::read(other);  // as an operator that makes its views before it calls its kernel
  detail::read(owing);
  profile.step();
  profile.stop();
  std::int64_t applied = 0;
  for (const ProfiledKernel& kernel : profile.kernels())
    if (kernel.kernel == "apply_pending") applied = kernel.bytes;
  EXPECT_EQ(applied, 2 * 64 + 16) << profile.table();
}

TEST(ProfileBytesTest, an_activation_that_cannot_be_owed_reads_its_input_once) {
  const NoGrad no_grad;
  const Tensor x = ones({1, 4, 2, 2}), scale = ones({4});
  Profile profile(Device::cpu(), kQuick);
  profile.start();
  (void)relu6(detail::make_pending(x, scale, {}, detail::PendingActivation::Relu));
  profile.step();
  profile.stop();
  for (const ProfiledKernel& kernel : profile.kernels()) {
    if (kernel.kernel != "activation_forward") continue;
    EXPECT_EQ(kernel.bytes, 2 * 64) << profile.table();
  }
}

TEST(ProfileBytesTest, no_share_is_above_one_and_none_is_of_nothing) {
  const Tensor small = ones({64}), large = ones({1 << 20});
  Profile profile(Device::cpu());
  profile.start();
  for (int i = 0; i < 50; ++i) {
    (void)small.clone();
    (void)sum(large);
  }
  { const detail::profiling::KernelScope nobody_knows(Device::cpu(), "unknown"); }
  {
    const detail::profiling::KernelScope too_fast(Device::cpu(), "fast");
    detail::profiling::count_bytes(std::int64_t{1} << 40, 0);
  }
  profile.step();
  profile.stop();
  ASSERT_GT(profile.bandwidth(), 0);
  for (const ProfiledKernel& kernel : profile.kernels()) {
    if (std::isnan(kernel.share_of_bandwidth)) {
      EXPECT_TRUE(kernel.bytes == 0 ||
                  static_cast<double>(kernel.bytes) > profile.bandwidth() * kernel.cpu_seconds)
          << kernel.kernel;
      continue;
    }
    EXPECT_GT(kernel.share_of_bandwidth, 0);
    EXPECT_LE(kernel.share_of_bandwidth, 1);
    EXPECT_GT(kernel.bytes, 0);
  }
  const auto ends = [table = profile.table()](const std::string& op, const std::string& end) {
    const std::size_t line = table.find('\n' + op);
    ASSERT_NE(line, std::string::npos) << table;
    EXPECT_THAT(table.substr(line + 1, table.find('\n', line + 1) - line - 1), EndsWith(end));
  };
  ends("unknown", "%          -        -        -");
  ends("fast", "    above");
  ends("all", "        -");
}

TEST(ProfileErrorsTest, an_exception_in_a_step_leaves_nothing_to_the_next_operator) {
  const Tensor a = ones({10}), large = ones({1000});
  Profile profile(Device::cpu(), kQuick);
  profile.start();
  EXPECT_THROW(LAMELLA_KERNEL(Device::cpu(), fails(detail::read(large))), Error);
  (void)(a + a);
  EXPECT_THROW(([&] {
                 detail::read(large);  // a view for a kernel that is never called
                 throw std::runtime_error("the loop's own");
               }()),
               std::runtime_error);
  profile.step();
  (void)(a - a);
  profile.step();
  profile.stop();
  EXPECT_EQ(profile.steps(), 2);
  EXPECT_EQ(bytes_of(profile, "add"), 120);
  EXPECT_EQ(bytes_of(profile, "sub"), 120);
  EXPECT_EQ(bytes_of(profile, "fails"), 4000);
}

TEST(ProfileErrorsTest, an_exception_in_backward_ends_its_pass) {
  Tensor x = ones({10}).set_requires_grad();
  Profile profile(Device::cpu(), kQuick);
  profile.start();
  Tensor y = x * 2.0;
  y.register_hook([](const Tensor&) -> Tensor { throw Error("a hook's own"); });
  EXPECT_THROW((y * 3.0).backward(ones({10})), Error);
  const Tensor a = ones({10});
  (void)(a - a);
  profile.step();
  profile.stop();
  for (const ProfiledKernel& kernel : profile.kernels())
    if (kernel.op == "sub") {
      EXPECT_EQ(kernel.pass, ProfiledPass::Forward);
    }
  EXPECT_EQ(bytes_of(profile, "sub"), 120);
}

TEST(ProfileErrorsTest, a_profile_dropped_by_an_exception_makes_room) {
  EXPECT_THROW(([&] {
                 Profile profile(Device::cpu(), kQuick);
                 profile.start();
                 throw std::runtime_error("the loop's own");
               }()),
               std::runtime_error);
  EXPECT_EQ(detail::profiling::on_bits.load(), 0U);
  const Tensor a = ones({10});
  Profile next(Device::cpu(), kQuick);
  EXPECT_THAT(message([] { Profile second(Device::cpu()); }), HasSubstr("there is one already"));
  next.start();
  (void)(a + a);
  EXPECT_THAT(message([] { Profile second(Device::cpu()); }), HasSubstr("there is one already"));
  (void)(a + a);
  next.step();
  next.stop();
  EXPECT_EQ(bytes_of(next, "add"), 240);
}

TEST(ProfileErrorsTest, another_thread_is_told_so) {
  const Tensor a = ones({10});
  Profile profile(Device::cpu(), kQuick);
  profile.start();
  (void)(a + a);
  std::string step, stop;
  std::thread([&] {
    step = message([&] { profile.step(); });
    stop = message([&] { profile.stop(); });
  }).join();
  EXPECT_THAT(step, HasSubstr("Profile::step: another thread called start()"));
  EXPECT_THAT(stop, HasSubstr("Profile::stop: another thread called start()"));
  (void)(a + a);
  profile.step();
  profile.stop();
  EXPECT_EQ(profile.steps(), 1);
  EXPECT_EQ(bytes_of(profile, "add"), 240);
}

TEST(ProfileErrorsTest, ends_in_another_thread_and_watches_no_more) {
  const Tensor a = ones({10});
  auto profile = std::make_unique<Profile>(Device::cpu(), kQuick);
  profile->start();
  std::thread([&] { profile = nullptr; }).join();
  EXPECT_EQ(detail::profiling::on_bits.load(), 0U);
  (void)(a + a);
  Profile next(Device::cpu(), kQuick);
  (void)(a * a);  // the first one's thread, which the second does not watch yet
  next.start();
  (void)(a - a);
  next.step();
  next.stop();
  ASSERT_EQ(next.kernels().size(), 1U) << next.table();
  EXPECT_EQ(next.kernels()[0].op, "sub");
}

TEST(ProfileErrorsTest, a_stopped_profile_does_not_start) {
  Profile profile(Device::cpu(), kQuick);
  profile.stop();
  EXPECT_THAT(message([&] { profile.start(); }), HasSubstr("was stopped; make another one"));
  EXPECT_THAT(message([&] { profile.step(); }), HasSubstr("not between start() and stop()"));
}

TEST(ProfileErrorsTest, names_of_any_length_and_bytes_are_shown) {
  static const std::string long_name(1000, 'n');
  const test::TempFolder temp;
  Profile profile(Device::cpu(), kQuick);
  profile.start();
  { const detail::profiling::KernelScope call(Device::cpu(), long_name.c_str()); }
  { const detail::profiling::KernelScope call(Device::cpu(), "no \xff UTF-8"); }
  profile.step();
  profile.stop();
  EXPECT_THAT(profile.table(), HasSubstr("\n" + long_name + "  forward "));
  profile.save_trace(temp / "trace.json");
  EXPECT_THAT(nlohmann::json::parse(profile.trace()).dump(), HasSubstr("UTF-8"));
}

}  // namespace
}  // namespace lamella::train
