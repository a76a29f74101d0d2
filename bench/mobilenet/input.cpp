#include "input.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "lamella/lamella.h"
#include "trainer.h"

namespace lamella::bench {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

namespace {

/// data_batch_1.bin … data_batch_5.bin of random bytes, while it lives.
class RandomCifar {
 public:
  explicit RandomCifar(std::int64_t images)
      : folder_(fs::temp_directory_path() / ("lamella-bench-" + std::to_string(getpid()))) {
    constexpr std::size_t kPixels = 3072;
    fs::create_directories(folder_);
    std::mt19937_64 random(1);
    for (int file = 1; file <= 5; ++file) {
      std::vector<std::uint64_t> words(static_cast<std::size_t>(images / 5) * (1 + kPixels) / 8 + 1);
      std::generate(words.begin(), words.end(), random);
      auto* const bytes = reinterpret_cast<unsigned char*>(words.data());
      for (std::int64_t i = 0; i < images / 5; ++i) {
        unsigned char& label = bytes[static_cast<std::size_t>(i) * (1 + kPixels)];
        label = static_cast<unsigned char>(label % 10);
      }
      const fs::path path = folder_ / ("data_batch_" + std::to_string(file) + ".bin");
      std::ofstream stream(path, std::ios::binary);
      stream.write(reinterpret_cast<const char*>(bytes), images / 5 * static_cast<std::int64_t>(1 + kPixels));
      if (!stream.flush()) throw std::runtime_error("cannot write " + path.string());
    }
  }
  ~RandomCifar() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  RandomCifar(const RandomCifar&) = delete;
  RandomCifar& operator=(const RandomCifar&) = delete;

  const fs::path& folder() const { return folder_; }

 private:
  fs::path folder_;
};

/// As lamella-mobilenet makes one for recipes/cifar10_gpu.json.
data::DataLoader make_loader(data::DatasetPtr images, const Cell& cell, const InputOptions& options) {
  const data::Normalize normalize{.mean = {0.4914f, 0.4822f, 0.4465f}, .std = {0.2470f, 0.2435f, 0.2616f}};
  std::vector<std::uint8_t> mean;
  for (const float m : normalize.mean) mean.push_back(static_cast<std::uint8_t>(std::lround(255 * m)));
  return data::DataLoader(std::move(images),
                          {.batch = cell.batch,
                           .shuffle = true,
                           .workers = options.workers,
                           .drop_last = true,
                           .seed = 1,
                           .transform = {data::RandomCrop(static_cast<int>(cell.size), 4),
                                         data::RandomHorizontalFlip(), data::Cutout(16, mean)},
                           .normalize = normalize,
                           .memory_format = cell.format,
                           .device = options.device});
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Images a second of whole epochs, at least `seconds` long; each of its batches is given to `use`.
template <class Use>
double rate_of_epochs(data::DataLoader& loader, Device device, double seconds, Use&& use) {
  std::int64_t images = 0;
  const Clock::time_point begin = Clock::now();
  do {
    for (const data::Batch& batch : loader) {
      use(batch);
      images += batch.images.size(0);
    }
    synchronize(device);
  } while (milliseconds_since(begin) < 1e3 * seconds);
  return static_cast<double>(images) / milliseconds_since(begin) * 1e3;
}

}  // namespace

nlohmann::json measure_input(std::FILE* out, const Cell& cell, const InputOptions& options) {
  const Device device = options.device;
  data::DatasetPtr images;
  double read_seconds = 0;
  {
    const RandomCifar files(options.images);
    const Clock::time_point begin = Clock::now();
    images = data::cifar10(files.folder(), /*train=*/true);
    read_seconds = milliseconds_since(begin) / 1e3;
  }
  data::DataLoader loader = make_loader(images, cell, options);
  std::fprintf(out, "\n%s: %s, %s, %lld images, %d workers\n", cell.name.c_str(), describe(cell).c_str(),
               name(cell.format), static_cast<long long>(images->size()), options.workers);
  std::fflush(out);

  Trainer trainer(cell, device);
  constexpr std::int64_t kCheckEvery = 100;  // as lamella-mobilenet on a GPU: each waits
  std::int64_t steps = 0;
  train::Average loss, accuracy;
  const auto train_on = [&](const data::Batch& batch) {
    const train::Step::Result result = trainer.step(batch.images, batch.labels);
    const auto count = static_cast<double>(batch.images.size(0));
    loss.add(result.loss, count);
    accuracy.add(train::accuracy(result.output, batch.labels), count);
    if (++steps % kCheckEvery == 0 && !std::isfinite(result.loss.item()))
      throw std::runtime_error("Lamella's loss is not finite after " + std::to_string(steps) + " steps");
  };
  rate_of_epochs(loader, device, 0, train_on);  // warms up
  Samples samples;
  std::vector<double> rates, loading;
  for (int round = 0; round < options.rounds; ++round) {
    trainer.train(options.seconds, samples);
    rates.push_back(rate_of_epochs(loader, device, options.seconds, train_on));
    loading.push_back(rate_of_epochs(loader, device, options.seconds, [](const data::Batch&) {}));
  }
  if (!std::isfinite(loss.value()))
    throw std::runtime_error("Lamella's loss is " + std::to_string(loss.value()));
  const double synthetic = Summary(samples).images_per_second(cell.batch), from_loader = median(rates),
               loader_alone = median(loading);
  std::fprintf(out,
               "  %-42s %10.0f images/s\n  %-42s %10.0f\n  %-42s %10.0f\n  share of the rate on the device "
               "%22.1f %%\n",
               "data on the device", synthetic, "from the loader, end to end", from_loader,
               "the loader alone", loader_alone, 100 * from_loader / synthetic);
  std::fflush(out);
  return {{"cell", cell.name},
          {"model", cell.model},
          {"size", cell.size},
          {"batch", cell.batch},
          {"small_stem", cell.small_stem},
          {"type", cell.type},
          {"capture", cell.capture},
          {"format", name(cell.format)},
          {"images", images->size()},
          {"workers", options.workers},
          {"read_seconds", read_seconds},
          {"loss", loss.value()},
          {"images_per_second_on_device", synthetic},
          {"images_per_second_from_loader", from_loader},
          {"images_per_second_of_loader_alone", loader_alone},
          {"rounds_from_loader", rates},
          {"share", from_loader / synthetic}};
}

}  // namespace lamella::bench
