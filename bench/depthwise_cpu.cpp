// Times the three CPU depthwise kernels on the shapes that the project is measured by, beside the copy
// bandwidth of the same run and, on request, beside PyTorch on the same machine, in turns.

#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/parallel.h"
#include "lamella/core/threads.h"
#include "layers/depthwise_conv2d/kernels.h"

namespace {

using lamella::Conv2dGeometry;
using lamella::DType;
using lamella::MemoryFormat;
using lamella::Shape;
using lamella::detail::GradientWrite;
using lamella::detail::TensorView;

struct Row {
  const char* name;
  std::int64_t n, c, h, w, kh, kw, stride, padding, dilation = 1;
};
constexpr Row kRows[] = {
    {"3x7", 2, 128, 128, 256, 3, 7, 1, 0},      {"kx1", 4, 8, 512, 512, 3, 1, 1, 0},
    {"3x3", 1, 128, 256, 512, 3, 3, 1, 0},      {"144@56", 16, 144, 56, 56, 3, 3, 1, 1},
    {"96@112s2", 16, 96, 112, 112, 3, 3, 2, 1}, {"384@14", 32, 384, 14, 14, 3, 3, 1, 1},
    {"96@56k7", 8, 96, 56, 56, 7, 7, 1, 3},
};
// With --all: the layers of MobileNetV2 at 224 and 32 pixels and of MobileNetV3, and what other networks use.
constexpr Row kMoreRows[] = {
    {"32@112", 16, 32, 112, 112, 3, 3, 1, 1},    {"144@56s2", 16, 144, 56, 56, 3, 3, 2, 1},
    {"192@28", 16, 192, 28, 28, 3, 3, 1, 1},     {"192@28s2", 16, 192, 28, 28, 3, 3, 2, 1},
    {"576@14", 16, 576, 14, 14, 3, 3, 1, 1},     {"576@14s2", 16, 576, 14, 14, 3, 3, 2, 1},
    {"960@7", 16, 960, 7, 7, 3, 3, 1, 1},        {"144@8", 64, 144, 8, 8, 3, 3, 1, 1},
    {"384@4", 64, 384, 4, 4, 3, 3, 1, 1},        {"960@2", 64, 960, 2, 2, 3, 3, 1, 1},
    {"72@56k5s2", 16, 72, 56, 56, 5, 5, 2, 2},   {"120@28k5", 16, 120, 28, 28, 5, 5, 1, 2},
    {"672@14k5s2", 16, 672, 14, 14, 5, 5, 2, 2}, {"960@7k5", 16, 960, 7, 7, 5, 5, 1, 2},
    {"384@14k7", 16, 384, 14, 14, 7, 7, 1, 3},   {"768@7k7", 16, 768, 7, 7, 7, 7, 1, 3},
    {"128@56d2", 8, 128, 56, 56, 3, 3, 1, 2, 2}, {"256@28d4", 8, 256, 28, 28, 3, 3, 1, 4, 4},
    {"64@56s3", 16, 64, 56, 56, 3, 3, 3, 1},     {"64@64k9", 4, 64, 64, 64, 9, 9, 1, 4},
};
constexpr std::array<const char*, 3> kPasses = {"forward", "input gradient", "weight gradient"};
using Times = std::array<std::vector<double>, 3>;  // of each pass, milliseconds

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Set by --cpu-time: the processor time of the calling thread instead of the time that passes.
bool count_cpu_time = false;

double now() {
  timespec time{};
  clock_gettime(count_cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) * 1e-6;
}

double milliseconds(const std::function<void()>& body) {
  const double start = now();
  body();
  return now() - start;
}

struct Tensor {
  std::vector<std::byte> storage;
  TensorView view;
  Tensor(const Shape& shape, DType dtype, MemoryFormat format, unsigned seed) {
    const std::size_t bytes = static_cast<std::size_t>(shape.product()) * size_of(dtype);
    storage.resize(bytes + 64);
    const auto address = reinterpret_cast<std::uintptr_t>(storage.data());
    view = {storage.data() + (64 - address % 64) % 64, shape, dense_strides(shape, format), dtype, {}};
    std::minstd_rand engine(seed);
    for (std::int64_t i = 0, count = shape.product(); i < count; ++i) {
      const float value = static_cast<float>(engine()) / 2147483647.0f - 0.5f;
      switch (dtype) {
        case DType::Float64:
          view.as<double>()[i] = value;
          break;
        case DType::BFloat16:
          view.as<lamella::BFloat16>()[i] = lamella::BFloat16(value);
          break;
        case DType::Float16:
          view.as<lamella::Float16>()[i] = lamella::Float16(value);
          break;
        default:
          view.as<float>()[i] = value;
      }
    }
  }
};

// Input and output in several copies, taken in turn, so that no call finds its data in the cache of the one
// before.
class Bench {
 public:
  Bench(const Row& row, DType dtype, MemoryFormat format, bool rotate)
      : geometry_(make_conv2d_geometry("bench", Shape{row.n, row.c, row.h, row.w},
                                       Shape{row.c, 1, row.kh, row.kw}, row.stride, row.padding, row.dilation,
                                       row.c)),
        weight_(geometry_.weight_shape(), dtype, format, 1),
        input_(geometry_.input_shape(), dtype, format, 4),
        output_(geometry_.output_shape(), dtype, format, 5),
        grad_weight_(geometry_.weight_shape(), dtype, format, 2) {
    const double copies = rotate ? 160e6 / bytes(dtype) : 1;
    for (int i = 0; i < std::max(copies, rotate ? 2.0 : 1.0); ++i) {
      inputs_.emplace_back(geometry_.input_shape(), dtype, format, 3 + i);
      outputs_.emplace_back(geometry_.output_shape(), dtype, format, 103 + i);
    }
  }
  double bytes(DType dtype) const {
    return static_cast<double>(geometry_.input_shape().product() + geometry_.output_shape().product()) *
           static_cast<double>(size_of(dtype));
  }
  void measure(int repetitions, Times& times) {
    for (std::size_t pass = 0; pass < kPasses.size(); ++pass) {
      run(pass);
      for (int i = 0; i < repetitions; ++i) times[pass].push_back(milliseconds([&] { run(pass); }));
    }
  }

 private:
  void run(std::size_t pass) {
    const TensorView& x = inputs_[turn_ % inputs_.size()].view;
    const TensorView& y = outputs_[turn_ % inputs_.size()].view;
    ++turn_;
    if (pass == 0) lamella::cpu::depthwise_conv2d_forward(geometry_, x, weight_.view, {}, output_.view);
    if (pass == 1) {
      lamella::cpu::depthwise_conv2d_backward_input(geometry_, y, weight_.view, input_.view,
                                                    GradientWrite::Overwrite);
    }
    if (pass == 2) {
      lamella::cpu::depthwise_conv2d_backward_weight(geometry_, y, x, grad_weight_.view,
                                                     GradientWrite::Overwrite, {}, GradientWrite::Overwrite);
    }
  }

  Conv2dGeometry geometry_;
  Tensor weight_, input_, output_, grad_weight_;
  std::vector<Tensor> inputs_, outputs_;
  std::size_t turn_ = 0;
};

// Bytes read and written per second by a plain copy of 256 MB on all threads.
double copy_bandwidth() {
  constexpr std::int64_t kBytes = 256 << 20, kPiece = 1 << 20;
  static std::vector<char> from(kBytes, 1), to(kBytes, 2);
  std::vector<double> times;
  for (int i = 0; i < 7; ++i) {
    times.push_back(milliseconds([] {
      lamella::detail::parallel_for(kBytes, kPiece, [](std::int64_t begin, std::int64_t end) {
        std::memcpy(to.data() + begin, from.data() + begin, static_cast<std::size_t>(end - begin));
      });
    }));
  }
  return 2.0 * kBytes / median(times) * 1e3;
}

std::string python_with_torch() {
  const char* chosen = std::getenv("LAMELLA_PYTHON");
  const std::vector<std::string> candidates =
      chosen != nullptr ? std::vector<std::string>{chosen}
                        : std::vector<std::string>{"python3", "/usr/bin/python3", "/usr/local/bin/python3"};
  std::string tried;
  for (const std::string& python : candidates) {
    const pid_t child = fork();
    if (child == 0) {
      if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(127);
      execlp(python.c_str(), python.c_str(), "-c", "import torch", nullptr);
      _exit(127);
    }
    int status = -1;
    if (child > 0 && waitpid(child, &status, 0) == child && status == 0) return python;
    tried += (tried.empty() ? "" : ", ") + python;
  }
  throw std::runtime_error("no Python with torch (tried " + tried + "); LAMELLA_PYTHON may name one");
}

// A Python process that answers one line of times for one line of request.
class Peer {
 public:
  Peer(const std::string& script, int threads) {
    const std::string python = python_with_torch();
    int to[2], from[2];
    if (pipe(to) != 0 || pipe(from) != 0) throw std::runtime_error("no pipe for the peer");
    child_ = fork();
    if (child_ == 0) {
      dup2(to[0], STDIN_FILENO);
      dup2(from[1], STDOUT_FILENO);
      close(to[1]);
      close(from[0]);
      execlp(python.c_str(), python.c_str(), script.c_str(), std::to_string(threads).c_str(),
             count_cpu_time ? "cpu-time" : "wall-time", nullptr);
      _exit(127);
    }
    close(to[0]);
    close(from[1]);
    requests_ = fdopen(to[1], "w");
    answers_ = fdopen(from[0], "r");
    version_ = read_line();
  }
  ~Peer() {
    std::fclose(requests_);
    std::fclose(answers_);
    waitpid(child_, nullptr, 0);
  }
  const std::string& version() const { return version_; }
  void measure(const Row& row, const char* dtype, MemoryFormat format, bool rotate, int repetitions,
               Times& times) {
    std::ostringstream request;
    for (const std::int64_t number :
         {row.n, row.c, row.h, row.w, row.kh, row.kw, row.stride, row.padding, row.dilation}) {
      request << number << ' ';
    }
    request << dtype << ' ' << name(format) << ' ' << rotate << ' ' << repetitions << '\n';
    std::fputs(request.str().c_str(), requests_);
    std::fflush(requests_);
    for (std::vector<double>& pass : times) {
      std::istringstream line(read_line());
      pass.insert(pass.end(), std::istream_iterator<double>(line), {});
    }
    // Its threads keep their cores busy for up to 0.2 s after their last work.
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }

 private:
  std::string read_line() {
    std::string line;
    for (int c = std::fgetc(answers_); c != '\n'; c = std::fgetc(answers_)) {
      if (c == EOF) throw std::runtime_error("the peer stopped before it answered");
      line.push_back(static_cast<char>(c));
    }
    return line;
  }
  pid_t child_ = -1;
  std::FILE* requests_ = nullptr;
  std::FILE* answers_ = nullptr;
  std::string version_;
};

struct Options {
  int threads = 2;
  int rounds = 3;
  int repetitions = 5;
  bool all = false;
  bool cached = false;
  bool cpu_time = false;
  std::string dtype = "float32", only, json, peer;
};

int run(const Options& options) {
  lamella::set_num_threads(options.threads);
  count_cpu_time = options.cpu_time;
  std::unique_ptr<Peer> peer;
  if (!options.peer.empty())
    peer = std::make_unique<Peer>(LAMELLA_BENCH_DIR "/torch_depthwise_cpu.py", options.threads);
  const DType dtype = lamella::parse_dtype(options.dtype);
  const double bandwidth = copy_bandwidth();
  std::printf("%s, %d threads, copy %.1f GB/s%s%s\n", options.dtype.c_str(), options.threads,
              bandwidth * 1e-9, peer ? ", beside " : "", peer ? peer->version().c_str() : "");
  std::printf("%-10s %-13s %-16s %8s %8s %7s %8s%s\n", "shape", "format", "pass", "floor ms", "ms", "share",
              "best ms", peer ? "   torch ms  best ms   torch/ours  of best" : "");
  nlohmann::json report{
      {"copy_bytes_per_second", bandwidth}, {"threads", options.threads}, {"dtype", options.dtype}};
  std::vector<Row> rows(std::begin(kRows), std::end(kRows));
  if (options.all) rows.insert(rows.end(), std::begin(kMoreRows), std::end(kMoreRows));
  int measured = 0, slower = 0;
  for (const Row& row : rows) {
    for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
      if (!options.only.empty() &&
          (std::string(row.name) + "/" + name(format)).find(options.only) == std::string::npos) {
        continue;
      }
      Bench bench(row, dtype, format, !options.cached);
      Times ours, theirs;
      for (int round = 0; round < options.rounds; ++round) {
        bench.measure(options.repetitions, ours);
        if (peer) {
          peer->measure(row, options.dtype.c_str(), format, !options.cached,
                        std::max(2, options.repetitions / 2), theirs);
        }
      }
      const double floor = bench.bytes(dtype) / bandwidth * 1e3;
      for (std::size_t pass = 0; pass < kPasses.size(); ++pass) {
        const double ms = median(ours[pass]), best = *std::min_element(ours[pass].begin(), ours[pass].end());
        std::printf("%-10s %-13s %-16s %8.2f %8.2f %6.0f%% %8.2f", row.name, name(format), kPasses[pass],
                    floor, ms, 100 * floor / ms, best);
        nlohmann::json entry{
            {"shape", row.name}, {"format", name(format)}, {"pass", kPasses[pass]}, {"floor_ms", floor},
            {"ms", ms},          {"best_ms", best}};
        if (peer) {
          const double torch = median(theirs[pass]),
                       torch_best = *std::min_element(theirs[pass].begin(), theirs[pass].end());
          std::printf("   %8.2f %8.2f  %10.2fx %7.2fx", torch, torch_best, torch / ms, torch_best / best);
          ++measured;
          slower += torch < ms && torch_best < best;
          entry["torch_ms"] = torch;
          entry["torch_best_ms"] = torch_best;
        }
        std::printf("\n");
        std::fflush(stdout);
        report["rows"].push_back(entry);
      }
    }
  }
  if (peer) {
    std::printf("slower than the peer, by the median and by the best time: %d of %d\n", slower, measured);
    report["slower_than_peer"] = slower;
  }
  if (!options.json.empty()) {
    std::ofstream file(options.json);
    file << report.dump(2) << '\n';
    if (!file.flush()) throw std::runtime_error("cannot write " + options.json);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Times depthwise convolution and its gradients on the CPU");
  app.add_option("--threads", options.threads, "threads, for the peer too")->capture_default_str();
  app.add_option("--rounds", options.rounds, "turns of ours and the peer")->capture_default_str();
  app.add_option("--repetitions", options.repetitions, "timed calls of a pass in each turn")
      ->capture_default_str();
  app.add_option("--dtype", options.dtype)
      ->capture_default_str()
      ->check(CLI::IsMember({"float32", "float64", "bfloat16", "float16"}));
  app.add_flag("--all", options.all, "more shapes");
  app.add_flag("--cached", options.cached, "use the same buffers in each call");
  app.add_flag("--cpu-time", options.cpu_time, "count processor time, for a busy machine; one thread");
  app.add_option("--only", options.only, "rows whose shape/format contains this");
  app.add_option("--json", options.json, "write the table to this file too");
  app.add_option("--peer", options.peer, "also time this")->check(CLI::IsMember({"torch"}));
  CLI11_PARSE(app, argc, argv);
  if (options.cpu_time) options.threads = 1;
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_depthwise_cpu: %s\n", error.what());
    return 1;
  }
}
