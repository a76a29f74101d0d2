#include "profile.h"

#include <cstdio>
#include <fstream>
#include <string>

#include "interrupt.h"

namespace lm = lamella;
namespace fs = std::filesystem;

namespace {

constexpr int kWarmUp = 3;  // what outlives a step is made in the first two

void write(const fs::path& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file) throw lm::IoError(path.string() + ": cannot be written");
}

}  // namespace

void check(const ProfileRun& run) {
  if (run.folder.empty()) return;
  if (run.steps < 1) throw lm::Error("profile-steps is " + std::to_string(run.steps) + ", must be 1 or more");
  std::error_code error;
  fs::create_directories(run.folder, error);
  if (!fs::is_directory(run.folder))
    throw lm::IoError("profile: cannot make the folder " + run.folder.string() +
                      (error ? ": " + error.message() : ""));
}

bool profile_steps(lm::train::Profile& profile, const lm::Module& network, lm::data::DataLoader& loader,
                   const std::function<void(const lm::Tensor& images, const lm::Tensor& labels)>& step,
                   const ProfileRun& run) {
  int done = 0;
  for (std::int64_t epoch = 0; done < kWarmUp + run.steps; ++epoch) {
    loader.set_epoch(epoch);
    for (const auto& [images, labels] : loader) {
      if (done == kWarmUp) {
        profile.watch(network);
        profile.start();
      }
      step(images, labels);
      if (interrupted()) return false;
      if (++done > kWarmUp) profile.step();
      if (done == kWarmUp + run.steps) break;
    }
  }
  profile.stop();
  const std::string operators = profile.table(), memory = profile.memory_table();
  write(run.folder / "operators.txt", operators);
  write(run.folder / "memory.txt", memory);
  profile.save_trace(run.folder / "trace.json");
  std::printf("%s\n%s\n", operators.c_str(), memory.c_str());
  std::printf("saved %s, for ui.perfetto.dev or chrome://tracing\n", (run.folder / "trace.json").c_str());
  return true;
}
