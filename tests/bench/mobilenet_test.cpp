#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "bench/mobilenet/cells.h"
#include "bench/mobilenet/parts.h"
#include "gmock/gmock.h"
#include "lamella/core/device.h"
#include "tests/support/temp_folder.h"

namespace lamella::bench {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

struct Outcome {
  int status = -1;
  std::string text;  ///< of both outputs
};

Outcome run(const std::string& options) {
  Outcome outcome;
  FILE* const pipe = popen((std::string(BENCH_MOBILENET) + ' ' + options + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> bytes;
  for (std::size_t n; (n = fread(bytes.data(), 1, bytes.size(), pipe)) > 0;)
    outcome.text.append(bytes.data(), n);
  const int status = pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return outcome;
}

const std::string kSmall = "--quick --device cpu --width 0.25 --size 32 --format channels_last ";

class BenchMobilenet : public ::testing::Test {
 protected:
  /// What it writes with --json.
  Json report(const std::string& options) {
    const std::filesystem::path file = folder_ / "report.json";
    outcome_ = run(options + " --json " + file.string());
    const auto bytes = std::filesystem::exists(file) ? test::get_file(file) : std::vector<std::uint8_t>();
    return Json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  }

  /// A peer that is no PyTorch: what it does is the shell's answer to each `case` of a request.
  void make_peer(const std::string& cases) {
    const std::filesystem::path file = folder_ / "peer.sh";
    const std::string text =
        "#!/bin/sh\necho PyTorch 0\nwhile read -r line; do\ncase \"$line\" in\n" + cases + "esac\ndone\n";
    test::put_file(file, std::vector<std::uint8_t>(text.begin(), text.end()));
    std::filesystem::permissions(file, std::filesystem::perms::owner_all);
    setenv("LAMELLA_PYTHON", file.c_str(), 1);
  }
  ~BenchMobilenet() override { unsetenv("LAMELLA_PYTHON"); }

  test::TempFolder folder_;
  Outcome outcome_;
};

TEST_F(BenchMobilenet, lists_the_cells_that_have_a_name) {
  const Outcome list = run("--list");
  EXPECT_EQ(list.status, 0);
  for (const std::string& name : cell_names()) EXPECT_THAT(list.text, HasSubstr(name + ' '));
}

TEST_F(BenchMobilenet, parts_and_gaps_make_the_step) {
  const Json json = report(kSmall);
  ASSERT_EQ(outcome_.status, 0) << outcome_.text;
  ASSERT_EQ(json["rows"].size(), 1u);
  const Json& row = json["rows"][0];
  EXPECT_EQ(row["lamella"]["samples"], 2);
  double sum = row["by_part"]["gaps_ms"];
  for (const Json& part : row["by_part"]["parts"]) {
    sum += part["ms"].get<double>();
    EXPECT_GT(part["ms"], 0) << part;
    EXPECT_GT(part["bytes"], 0) << part;
  }
  EXPECT_NEAR(sum, row["lamella"]["step_ms"], 1e-6 * sum);
  EXPECT_EQ(row["by_part"]["parts"].size(), kParts);
  EXPECT_EQ(row["by_part"]["parts"][2]["calls"], 2) << "the stem: forward, and the weight's gradient";
  for (const char* part : kPartNames) EXPECT_THAT(outcome_.text, HasSubstr(part));
  EXPECT_TRUE(json.contains("machine") && json.contains("version") && json.contains("libraries"));
}

TEST_F(BenchMobilenet, cells_are_tried_without_a_gpu) {
  const Json json = report("--cell v3-224-bf16 --quick --device cpu");
  ASSERT_EQ(outcome_.status, 0) << outcome_.text;
  EXPECT_EQ(json["rows"][0]["cell"], "v3-224-bf16");
  EXPECT_EQ(json["rows"][0]["type"], "float32") << "what was measured, not what the name says";
}

TEST_F(BenchMobilenet, input_is_a_share_of_the_rate_on_the_device) {
  const Json json = report("--cell cifar10-input --quick --device cpu --workers 2");
  ASSERT_EQ(outcome_.status, 0) << outcome_.text;
  const Json& row = json["rows"][0];
  EXPECT_EQ(row["workers"], 2);
  EXPECT_EQ(row["images"], 40);
  EXPECT_NEAR(
      row["share"],
      row["images_per_second_from_loader"].get<double>() / row["images_per_second_on_device"].get<double>(),
      1e-9);
}

TEST_F(BenchMobilenet, wrong_options_are_named_with_the_right_ones) {
  const auto fails = [](const std::string& options, const std::string& message) {
    const Outcome outcome = run(options);
    EXPECT_NE(outcome.status, 0) << options;
    EXPECT_THAT(outcome.text, HasSubstr(message)) << options;
  };
  fails("--cell v2", "v2-224-bf16");
  fails("--cell v2-224-bf16 --size 32", "--size");
  fails("--cell v2-224-bf16 --device cpu", "--cell v2-224-bf16 is measured on a GPU");
  fails("--cell cifar10-input --quick --device cpu --peer torch", "--cell cifar10-input has no peer");
  fails("--peer torch --peer-modes slow", "compile-max-autotune");
  fails("--peer-modes eager", "--peer");
  fails("--bf16", "--bf16 is for GPUs");
  fails("--device nowhere", "nowhere");
  if (cuda_device_count() == 0) fails("--cell v2-224-bf16", "cuda:0");
}

// Answers as MobileNetV2 of a quarter of the width: 10 ms a step.
const std::string kBuilds =
    "echo '{\"parameters\": 250922, \"network\": \"none\", \"warm_up_seconds\": 1}' ;;\n";
const std::string kTrains =
    "*seconds*) echo '{\"times\": [[1, 2, 3, 10], [1, 2, 3, 10]], \"steps\": 2, \"loss\": 1, "
    "\"peak_reserved\": 0, "
    "\"steady_reserved\": 0}' ;;\n";

TEST_F(BenchMobilenet, a_mode_that_fails_ends_no_other) {
  make_peer(kTrains +
            "*graph*) echo '{\"error\": \"no graphs here\"}' ;;\n"
            "*reduce-overhead*) exit 3 ;;\n"
            "*max-autotune*) echo nonsense ;;\n"
            "*compile*) sleep 100 ;;\n"
            "*) " +
            kBuilds);
  const Json json = report(kSmall +
                           "--peer torch --peer-limit 3 --peer-modes "
                           "graph,compile,compile-reduce-overhead,compile-max-autotune,eager,eager-nchw");
  ASSERT_EQ(outcome_.status, 0) << outcome_.text;
  const Json& row = json["rows"][0];
  ASSERT_EQ(row["peers"].size(), 6u);
  EXPECT_EQ(row["peers"][0]["error"], "no graphs here");
  EXPECT_THAT(row["peers"][1]["error"], HasSubstr("limit of 3 s"));
  EXPECT_THAT(row["peers"][2]["error"], HasSubstr("stopped"));
  EXPECT_THAT(row["peers"][3]["error"], HasSubstr("nonsense"));
  EXPECT_EQ(row["peers"][4]["step_ms"], 10);
  EXPECT_EQ(row["peers"][5]["format"], "contiguous");
  EXPECT_EQ(row["best_peer"], "eager");
  EXPECT_NEAR(row["ratio"], 10 / row["lamella"]["step_ms"].get<double>(), 1e-9);
  EXPECT_THAT(outcome_.text, HasSubstr("failed: no graphs here"));
}

TEST_F(BenchMobilenet, without_any_mode_it_fails_with_its_own_figures_written) {
  make_peer("*) echo '{\"error\": \"no memory\"}' ;;\n");
  const Json json = report(kSmall + "--peer torch");
  EXPECT_EQ(outcome_.status, 1);
  EXPECT_THAT(outcome_.text, HasSubstr("no mode of the peer worked"));
  EXPECT_GT(json["rows"][0]["lamella"]["step_ms"], 0);
  EXPECT_FALSE(json["rows"][0].contains("ratio"));
}

TEST_F(BenchMobilenet, another_network_is_no_peer) {
  make_peer(kTrains + "*) echo '{\"parameters\": 7, \"network\": \"none\", \"warm_up_seconds\": 1}' ;;\n");
  const Outcome outcome = run(kSmall + "--peer torch");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.text, HasSubstr("the networks differ"));
}

TEST(BenchParts, kernels_belong_to_one) {
  using train::ProfiledPass;
  const auto part = [](const char* kernel, ProfiledPass pass = ProfiledPass::Forward) {
    return std::string(kPartNames[part_of(kernel, pass)]);
  };
  EXPECT_EQ(part("depthwise_conv2d_backward_pending", ProfiledPass::Gradient), "depthwise");
  EXPECT_EQ(part("conv2d_forward_pending"), "1x1");
  EXPECT_EQ(part("gemm"), "1x1");
  EXPECT_EQ(part("batch_norm_affine"), "norm and elementwise");
  EXPECT_EQ(part("apply_pending"), "norm and elementwise");
  EXPECT_EQ(part("sgd_step", ProfiledPass::Update), "optimizer");
  EXPECT_EQ(part("copy", ProfiledPass::Update), "optimizer");
}

// docs/architecture.md has 81 MB an image for six passes, from the sizes of what lies between the layers.
TEST(BenchParts, least_bytes_are_six_passes) {
  Cell cell = cell_of("v2-224-bf16");
  const auto network = build(cell);
  const std::vector<double> least = least_bytes(*network, cell, Device::cpu());
  const double convolutions = least[0] + least[1] + least[2];
  EXPECT_NEAR(convolutions / 256 / 1e6, 81, 2);
  EXPECT_EQ(least[3], 0);
  EXPECT_EQ(least[4], 20.0 * static_cast<double>(network->num_parameters()));
  // Depthwise: 3 * (in + out) of the 17 layers, two bytes each; the first two: 32 channels and 96 to half.
  EXPECT_GT(least[0] / 256, 6.0 * (2 * 32 * 112 * 112 + 96 * (112 * 112 + 56 * 56)));
}

// Layers that squeeze and excite are on one pixel, and what follows them reads the whole map.
TEST(BenchParts, least_bytes_go_around_squeeze_and_excitation) {
  Cell cell = cell_of("v3-224-bf16");
  cell.batch = 1;
  const auto network = build(cell);
  const double with = least_bytes(*network, cell, Device::cpu())[1];
  // features.4.block.3.0 alone: 72 channels in, 40 out, on 28x28.
  EXPECT_GT(with, 6.0 * (72 + 40) * 28 * 28);
  EXPECT_LT(with / 1e6, 80);
  EXPECT_GT(with / 1e6, 30);
}

}  // namespace
}  // namespace lamella::bench
