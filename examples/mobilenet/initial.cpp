#include "initial.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "checkpoint.h"

namespace lm = lamella;

namespace {

/// The part of a file that is a network's.
lm::StateDict weights_in(const std::filesystem::path& path) {
  Checkpoint file;
  file.tensors = lm::io::load_safetensors(path);
  for (const char* prefix : {"ema.module", "network"})
    if (lm::StateDict part = file.part(prefix); !part.empty()) return part;
  return file.tensors;
}

/// The first few lines.
std::string shortened(const std::string& text, std::size_t lines) {
  std::size_t end = 0;
  for (std::size_t line = 0; line < lines && end != std::string::npos; ++line) end = text.find('\n', end + 1);
  if (end == std::string::npos) return text;
  return text.substr(0, end) + "\n  and " +
         std::to_string(std::count(text.begin() + end + 1, text.end(), '\n') + 1) + " more";
}

}  // namespace

void load_initial(lm::Module& network, const std::filesystem::path& path) {
  constexpr std::size_t kLines = 13;
  const lm::StateDict weights = weights_in(path);
  const lm::StateDict own = network.state_dict();
  std::string classifier;  // the last linear layer
  network.apply([&](const std::string& name, lm::Module& module) {
    if (dynamic_cast<const lm::Linear*>(&module) != nullptr) classifier = name;
  });
  const auto fits = [&](const auto& named) {
    const lm::Tensor* found = weights.find(named.first);
    return !named.first.starts_with(classifier + '.') && found != nullptr &&
           found->shape() == named.second.shape();
  };
  if (std::none_of(own.begin(), own.end(), fits))
    throw lm::IoError(path.string() + ": nothing in it fits a " + network.type_name() +
                      "; its first tensor is " +
                      (weights.empty() ? "missing" : weights[0].first + ' ' + weights[0].second.describe()) +
                      ", the network's is " + own[0].first + ' ' + own[0].second.describe());
  const lm::LoadReport report = network.load_state_dict(weights, {.strict = false});
  const std::size_t loaded = own.size() - report.missing.size() - report.mismatched.size();
  std::fprintf(stderr, "init: %zu of the network's %zu tensors are from %s\n", loaded, own.size(),
               path.c_str());
  if (!report.ok()) std::fprintf(stderr, "init: %s\n", shortened(report.to_string(), kLines).c_str());
}
