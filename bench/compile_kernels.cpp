#include "compile_kernels.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "lamella/core/error.h"

extern char** environ;

namespace lamella::bench {

// Kernels are compiled by processes of their own: within one, CUDA's compiler does part of its work for one
// kernel at a time.
Compiled compile_all(const std::vector<std::string>& kernels, int architecture) {
  if (const char* const folder = std::getenv("LAMELLA_KERNEL_CACHE"); folder != nullptr && *folder == '\0')
    return Compiled::Nowhere;
  const std::string list =
      std::filesystem::temp_directory_path() / ("lamella-kernels-" + std::to_string(::getpid()));
  {
    std::ofstream file(list);
    for (const std::string& kernel : kernels) file << kernel << '\n';
  }
  const int shares = static_cast<int>(
      std::clamp<std::size_t>(kernels.size(), 1, std::max(1U, std::thread::hardware_concurrency())));
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  std::vector<pid_t> children;
  for (int share = 0; share < shares; ++share) {
    std::vector<std::string> words{self,
                                   "--compile-share",
                                   list,
                                   std::to_string(architecture),
                                   std::to_string(share),
                                   std::to_string(shares)};
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_t child = 0;
    if (posix_spawn(&child, self.c_str(), nullptr, nullptr, arguments.data(), environ) == 0)
      children.push_back(child);
  }
  bool all = children.size() == static_cast<std::size_t>(shares);
  for (const pid_t child : children) {
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) all = false;
  }
  std::filesystem::remove(list);
  return all ? Compiled::All : Compiled::Some;
}

int compile_share(const detail::cuda::Sources& sources, const std::vector<std::string>& words) {
  std::ifstream lines(words.at(0));
  const int architecture = std::stoi(words.at(1)), share = std::stoi(words.at(2)),
            shares = std::stoi(words.at(3));
  std::string kernel;
  int failures = 0;
  for (int i = 0; std::getline(lines, kernel); ++i) {
    if (i % shares != share) continue;
    try {
      detail::cuda::compile_or_load(sources, kernel, architecture);
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      ++failures;
    }
  }
  return failures > 0 ? 1 : 0;
}

}  // namespace lamella::bench
