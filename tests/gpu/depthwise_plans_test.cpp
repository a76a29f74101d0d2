#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/cuda/compiler.h"
#include "devices.h"
#include "lamella/lamella.h"
#include "layers/depthwise_conv2d/cuda/plan.h"
#include "layers/depthwise_conv2d/cuda/run.h"

// Plans and run-time compilation; but for the last test they need no GPU, only CUDA's compiler library.
namespace lamella::test {
namespace {

using depthwise::Pass;
using depthwise::Plan;
using depthwise::Problem;

constexpr int kHopper = 90;

bool has_compiler() {
  try {
    detail::cuda::compiler_version();
    return true;
  } catch (const Error&) {
    return false;
  }
}
#define LAMELLA_NEEDS_COMPILER() \
  if (!has_compiler()) GTEST_SKIP() << "libnvrtc, which comes with CUDA, cannot be loaded"

Problem problem_of(Pass pass, DType dtype, bool channels_last, std::int64_t channels, std::int64_t size,
                   std::int64_t kernel, std::int64_t stride, std::int64_t dilation = 1) {
  Problem problem;
  problem.pass = pass;
  problem.dtype = dtype;
  problem.channels_last = channels_last;
  problem.boxes = true;
  Conv2dGeometry& g = problem.geometry;
  g.batch = 256;
  g.in_channels = g.out_channels = g.groups = channels;
  g.in = Size2(size);
  g.kernel = Size2(kernel);
  g.stride = Size2(stride);
  g.dilation = Size2(dilation);
  g.padding = Size2(dilation * (kernel - 1) / 2);
  g.out = Size2((size + 2 * g.padding.h - dilation * (kernel - 1) - 1) / stride + 1);
  return problem;
}

std::vector<Problem> some_problems() {
  std::vector<Problem> problems;
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight, Pass::Both})
    for (const bool channels_last : {false, true}) {
      problems.push_back(problem_of(pass, float32, channels_last, 144, 56, 3, 1));
      problems.push_back(problem_of(pass, bfloat16, channels_last, 96, 112, 3, 2));
      problems.push_back(problem_of(pass, float16, channels_last, 384, 14, 5, 1));
      problems.push_back(problem_of(pass, bfloat16, channels_last, 960, 7, 3, 1));
      problems.push_back(problem_of(pass, bfloat16, channels_last, 24, 23, 3, 1, 2));
    }
  return problems;
}

TEST(DepthwisePlansTest, every_problem_has_plans_that_fit_the_gpu) {
  for (const Problem& problem : some_problems()) {
    const std::vector<Plan> plans = depthwise::plans_for(problem);
    ASSERT_FALSE(plans.empty());
    for (const Plan& plan : plans) {
      EXPECT_GT(plan.launch.blocks, 0) << plan.what;
      EXPECT_LE(plan.launch.shared_bytes, problem.shared_bytes) << plan.what;
      EXPECT_LE(plan.launch.threads, 1024) << plan.what;
      EXPECT_GT(plan.cost, 0) << plan.what;
      EXPECT_EQ(plan.launch.parts > 0, problem.pass == Pass::Weight || problem.pass == Pass::Both)
          << plan.what;
    }
  }
}

TEST(DepthwisePlansTest, no_geometry_up_to_15x15_and_steps_of_three_is_left_to_generic_kernels) {
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight})
    for (const DType dtype : {float32, bfloat16, float16})
      for (const bool channels_last : {false, true})
        for (const std::int64_t size : {30, 190})
          for (const std::int64_t kernel : {1, 7, 15})
            for (const std::int64_t stride : {1, 3, 4})
              for (const std::int64_t dilation : {1, 3})
                for (const std::int64_t outputs : {1, 2}) {
                  Problem problem =
                      problem_of(pass, dtype, channels_last, 12, size, kernel, stride, dilation);
                  problem.geometry.out_channels *= outputs;
                  if (stride > 3 && outputs > 1) continue;
                  EXPECT_FALSE(depthwise::plans_for(problem).empty())
                      << static_cast<int>(pass) << ' ' << name(dtype) << (channels_last ? " NHWC " : " NCHW ")
                      << size << ", kernel " << kernel << ", stride " << stride << ", dilation " << dilation
                      << ", outputs of a channel " << outputs;
                }
}

TEST(DepthwisePlansTest, an_older_gpu_gets_kernels_without_the_copy_engine) {
  for (Problem problem : some_problems()) {
    problem.boxes = false;
    for (const Plan& plan : depthwise::plans_for(problem))
      EXPECT_TRUE(plan.family == Plan::Family::Pixels || plan.family == Plan::Family::Planes ||
                  plan.family == Plan::Family::Direct)
          << plan.what;
  }
}

TEST(DepthwisePlansTest, the_first_plans_compile) {
  LAMELLA_NEEDS_COMPILER();
  std::set<std::string> kernels;
  for (const Problem& problem : some_problems()) kernels.insert(depthwise::plans_for(problem).front().kernel);
  for (const std::string& kernel : kernels) {
    const detail::cuda::CompiledKernel compiled =
        detail::cuda::compile(cuda::depthwise::device_sources(), kernel, kHopper);
    EXPECT_FALSE(compiled.cubin.empty()) << kernel;
    EXPECT_FALSE(compiled.symbol.empty()) << kernel;
  }
}

/// $LAMELLA_KERNEL_CACHE for the length of a test.
class CacheFolder {
 public:
  CacheFolder()
      : folder_(std::filesystem::temp_directory_path() / ("lamella-kernels-" + std::to_string(::getpid()))) {
    if (const char* const before = std::getenv(kName)) before_ = before, was_set_ = true;
    setenv(kName, folder_.c_str(), 1);
  }
  ~CacheFolder() {
    was_set_ ? setenv(kName, before_.c_str(), 1) : unsetenv(kName);
    std::filesystem::remove_all(folder_);
  }
  std::vector<std::filesystem::path> files() const {
    std::vector<std::filesystem::path> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) found.push_back(entry.path());
    return found;
  }

 private:
  static constexpr const char* kName = "LAMELLA_KERNEL_CACHE";
  std::filesystem::path folder_;
  std::string before_;
  bool was_set_ = false;
};

constexpr detail::cuda::SourceFile kFiles[] = {
    {"main.cu",
     "#include \"twice.cuh\"\ntemplate <class T> __global__ void fill(T* to) { *to = twice(T(21)); }"},
    {"twice.cuh", "template <class T> __device__ T twice(T x) { return x + x; }"}};
constexpr detail::cuda::Sources kSources{"a test", kFiles};

TEST(KernelCacheTest, gives_back_what_was_compiled) {
  LAMELLA_NEEDS_COMPILER();
  const CacheFolder folder;
  const auto first = detail::cuda::compile_or_load(kSources, "fill<int>", kHopper);
  ASSERT_EQ(folder.files().size(), 1U);
  const auto written = std::filesystem::last_write_time(folder.files()[0]);
  const auto second = detail::cuda::compile_or_load(kSources, "fill<int>", kHopper);
  EXPECT_EQ(second.cubin, first.cubin);
  EXPECT_EQ(second.symbol, first.symbol);
  EXPECT_EQ(std::filesystem::last_write_time(folder.files()[0]), written);
  detail::cuda::compile_or_load(kSources, "fill<float>", kHopper);
  EXPECT_EQ(folder.files().size(), 2U);
}

TEST(KernelCacheTest, does_not_use_a_damaged_file) {
  LAMELLA_NEEDS_COMPILER();
  const CacheFolder folder;
  const auto whole = detail::cuda::compile_or_load(kSources, "fill<int>", kHopper);
  const std::filesystem::path path = folder.files()[0];
  const auto size = std::filesystem::file_size(path);
  for (const std::uintmax_t at : {std::uintmax_t{0}, std::uintmax_t{20}, size / 2, size - 1}) {
    {
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(static_cast<std::streamoff>(at));
      const int byte = file.get();
      file.seekp(static_cast<std::streamoff>(at));
      file.put(static_cast<char>(byte ^ 1));
    }
    EXPECT_EQ(detail::cuda::compile_or_load(kSources, "fill<int>", kHopper).cubin, whole.cubin) << at;
  }
  std::filesystem::resize_file(path, size / 2);
  EXPECT_EQ(detail::cuda::compile_or_load(kSources, "fill<int>", kHopper).cubin, whole.cubin);
}

TEST(KernelCacheTest, says_what_the_compiler_says) {
  LAMELLA_NEEDS_COMPILER();
  try {
    detail::cuda::compile(kSources, "fill<nothing>", kHopper);
    FAIL() << "compiled";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("nothing"), std::string::npos) << error.what();
  }
}

TEST(KernelCacheTest, threads_that_want_the_same_kernel_get_the_same) {
  LAMELLA_NEEDS_GPU();
  LAMELLA_NEEDS_COMPILER();
  const CacheFolder folder;
  const std::vector<std::string> kernels{"fill<char>", "fill<short>", "fill<int>", "fill<long>"};
  std::vector<std::vector<const void*>> found(8);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < found.size(); ++i)
    threads.emplace_back([&, i] {
      for (std::size_t k = 0; k < kernels.size(); ++k)
        found[i].push_back(
            detail::cuda::kernel_for(kSources, kernels[(i + k) % kernels.size()], Device::cuda()));
    });
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < found.size(); ++i)
    for (std::size_t k = 0; k < kernels.size(); ++k) {
      EXPECT_NE(found[i][k], nullptr);
      EXPECT_EQ(found[i][k], found[0][(i + k) % kernels.size()]);
    }
}

TEST(DepthwisePlansTest, the_planned_kernels_are_what_runs) {
  LAMELLA_NEEDS_GPU();
  LAMELLA_NEEDS_COMPILER();
  for (const Problem& problem : some_problems()) {
    const std::string kernel = depthwise::plans_for(problem).front().kernel;
    EXPECT_NE(detail::cuda::kernel_for(cuda::depthwise::device_sources(), kernel, Device::cuda()), nullptr)
        << kernel;
  }
}

}  // namespace
}  // namespace lamella::test
