// The first convolutions of MobileNets on a GPU, batch 256, 224 pixels, in bfloat16 and float32: the time of
// each pass, its share of the roofline that is measured in the same run, and beside it what the general way
// takes, which reads an image that has been rounded before, and in float32 may use TF32. The roofline is the
// fastest copy of the same bytes; for weight gradients the fastest kernel that only reads them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../gpu_machine.h"
#include "lamella/lamella.h"
#include "layers/conv/cuda/stem/stem.h"
#include "layers/conv/kernels.h"
#include "tensor/door.h"

namespace lamella::bench {
namespace {

using detail::GradientWrite;
using detail::TensorView;

enum class Pass { Forward, Moments, Weight };
constexpr const char* kPassNames[] = {"forward", "forward+moments", "weight"};

struct Cell {
  std::int64_t outputs;
  DType image, type;  ///< type: of the output
  Pass pass;
  std::int64_t batch = 256, size = 224;

  Conv2dGeometry geometry() const {
    return make_conv2d_geometry("conv2d", {batch, 3, size, size}, {outputs, 3, 3, 3}, 2, 1, 1, 1);
  }
  std::int64_t image_bytes() const {
    return geometry().input_shape().product() * static_cast<std::int64_t>(size_of(image));
  }
  std::int64_t output_bytes() const {
    return geometry().output_shape().product() * static_cast<std::int64_t>(size_of(type));
  }
};

/// Images and outputs, or their gradients, that rotate.
class Buffers {
 public:
  Buffers(const Cell& cell, const Arena& arena, std::size_t sets) : cell_(cell), geometry_(cell.geometry()) {
    // A pair of these is a float32 number of about the same size.
    arena.fill(DType::BFloat16, sets * set_bytes(cell));
    std::byte* base = arena.at(0);
    for (std::size_t i = 0; i < sets; ++i, base += set_bytes(cell))
      sets_.push_back({view(base, geometry_.input_shape(), cell.image),
                       view(base + cell.image_bytes(), geometry_.input_shape(), cell.type),
                       view(base + cell.image_bytes() * 2, geometry_.output_shape(), cell.type)});
    const TensorOptions options{.dtype = cell.type, .device = Device::cuda()};
    weight_ = ones(geometry_.weight_shape(), options);
    gradient_ = zeros(geometry_.weight_shape(), {.dtype = DType::Float32, .device = Device::cuda()});
  }
  static std::size_t set_bytes(const Cell& cell) {
    return static_cast<std::size_t>(cell.image_bytes() * 2 + cell.output_bytes());
  }

  void run(std::size_t i) const {
    const Set& set = sets_[i % sets_.size()];
    bool done = false;
    if (cell_.pass == Pass::Weight) {
      detail::GradientParts parts(Device::cuda());
      done = cuda::stem::backward_weight(geometry_,
                                         {set.output, set.image, {}, GradientWrite::Overwrite, &parts});
    } else {
      detail::LeftParts moments(Device::cuda(), cell_.outputs);
      done = cuda::stem::forward(geometry_, {set.image,
                                             detail::read(weight_),
                                             {},
                                             set.output,
                                             cell_.pass == Pass::Moments ? &moments : nullptr});
    }
    if (!done) throw std::runtime_error("these kernels cannot do it");
  }
  void run_general(std::size_t i) const {
    const Set& set = sets_[i % sets_.size()];
    if (cell_.pass == Pass::Weight)
      cuda::conv2d_backward_weight(geometry_, set.output, set.rounded, detail::write(gradient_, "bench"),
                                   GradientWrite::Overwrite, {}, GradientWrite::Overwrite);
    else
      cuda::conv2d_forward(geometry_, set.rounded, detail::read(weight_), {}, set.output);
  }

 private:
  struct Set {
    TensorView image, rounded, output;
  };
  static TensorView view(std::byte* at, const Shape& shape, DType dtype) {
    return {at, shape, dense_strides(shape, MemoryFormat::ChannelsLast), dtype, Device::cuda()};
  }

  Cell cell_;
  Conv2dGeometry geometry_;
  std::vector<Set> sets_;
  Tensor weight_, gradient_;
};

int run(int argc, char** argv) {
  CLI::App app{"The first convolutions of MobileNets on a GPU, as shares of the roofline"};
  int repetitions = 21;
  bool quick = false;
  app.add_option("--repetitions", repetitions, "replays of which the median is taken")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--quick", quick, "batch 16, medians of 5, to see whether it runs");
  bool tf32 = false;
  app.add_flag("--tf32", tf32, "the general way may round float32 to TF32");
  CLI11_PARSE(app, argc, argv);
  if (!default_device().is_cuda()) throw std::runtime_error(why_no_gpu());
  if (quick) repetitions = 5;
  set_allow_tf32(tf32);

  std::vector<Cell> cells;
  constexpr std::pair<DType, DType> kTypes[] = {{DType::Float32, DType::BFloat16},
                                                {DType::BFloat16, DType::BFloat16},
                                                {DType::Float32, DType::Float32}};
  for (const std::int64_t outputs : {32, 16})
    for (const auto& [image, type] : kTypes)
      for (const Pass pass : {Pass::Forward, Pass::Moments, Pass::Weight}) {
        cells.push_back({outputs, image, type, pass});
        if (quick) cells.back().batch = 16;
      }
  const auto rotation_of = [](const Cell& cell) {
    return rotation_for(static_cast<double>(cell.image_bytes() + cell.output_bytes()));
  };
  std::size_t most = std::size_t{5} << 28;  // for the copy of 1 GB
  for (const Cell& cell : cells) most = std::max(most, rotation_of(cell).buffers * Buffers::set_bytes(cell));
  const Arena arena(most + (std::size_t{64} << 20));
  const Timer timer(repetitions);
  Roofline roofline(timer, arena);
  const Machine machine = this_machine();
  std::printf("%s, driver %s; clocks (now, most): %s; a copy of 1 GB in all %.2f TB/s\n", machine.gpu.c_str(),
              machine.driver.c_str(), machine.clocks.c_str(), roofline.copy(1e9) * 1e-12);
  std::printf("%-8s %-9s %-9s %-16s %9s %8s %6s %9s %7s\n", "channels", "image", "output", "pass", "ms", "GB",
              "share", "general", "ratio");
  for (const Cell& cell : cells) {
    const auto bytes = static_cast<double>(cell.image_bytes() + cell.output_bytes());
    const double least =
        1e3 * bytes / (cell.pass == Pass::Weight ? roofline.read(bytes) : roofline.copy(bytes));
    const Rotation rotation = rotation_of(cell);
    const Buffers buffers(cell, arena, rotation.buffers);
    const double ms = timer.of_graph(rotation.calls, [&](std::size_t i) { buffers.run(i); }),
                 general = timer.of_graph(rotation.calls, [&](std::size_t i) { buffers.run_general(i); });
    std::printf("3-%-6lld %-9s %-9s %-16s %9.4f %8.4f %5.1f%% %9.4f %6.2fx\n",
                static_cast<long long>(cell.outputs), name(cell.image), name(cell.type),
                kPassNames[static_cast<std::size_t>(cell.pass)], ms, bytes * 1e-9, 100 * least / ms, general,
                general / ms);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace lamella::bench

int main(int argc, char** argv) {
  try {
    return lamella::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_stem: %s\n", error.what());
    return 1;
  }
}
