#include "layers/depthwise_conv2d/cuda/tuning.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <string_view>
#include <system_error>

#include "core/check.h"
#include "core/cuda/compiler.h"
#include "lamella/core/log.h"
#include "lamella/core/version.h"

namespace lamella::depthwise {

extern const std::span<const detail::cuda::SourceFile> kMeasured;  // made by cmake/embed.cmake of measured/

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFirstLine = "lamella tuning 1";

/// FNV-1a (G. Fowler, L. C. Noll, K.-P. Vo), 64 bits.
std::string checksum_of(std::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
  std::ostringstream text;
  text << std::hex << hash;
  return text.str();
}

/// Throws Error, which calls the bytes `what`.
Tuning parse(const std::string& bytes, const std::string& what, const std::string& device) {
  LAMELLA_CHECK(Error, std::string_view(bytes).substr(0, kFirstLine.size()) == kFirstLine, what,
                ": it does not begin with \"", kFirstLine, "\"");
  const std::size_t end = bytes.rfind("end ");
  LAMELLA_CHECK(Error,
                end != std::string::npos &&
                    bytes.substr(end) == "end " + checksum_of(std::string_view(bytes).substr(0, end)) + "\n",
                what, ": it is damaged");
  std::istringstream lines(bytes.substr(0, end));
  std::string line;
  std::getline(lines, line);
  std::getline(lines, line);
  LAMELLA_CHECK(Error, line == "version " LAMELLA_VERSION, what, ": it is of ", line,
                " of Lamella, and this is " LAMELLA_VERSION);
  std::getline(lines, line);
  LAMELLA_CHECK(Error, line == "device " + device, what, ": it is of ", line, ", and this is ", device);
  Tuning tuning;
  while (std::getline(lines, line)) {
    const std::size_t tab = line.find('\t');
    LAMELLA_CHECK(Error, tab != std::string::npos, what, ": it is damaged");
    tuning[line.substr(0, tab)] = line.substr(tab + 1);
  }
  return tuning;
}

/// What stands in a plan's text before, in and behind its launch.
struct PlanText {
  explicit PlanText(const std::string& text) {
    const std::size_t begin = text.find(" <<<"), end = text.find(">>> ");
    if (begin == std::string::npos || end == std::string::npos) return;
    kernel = text.substr(0, begin), what = text.substr(end + 4);
    blocks = std::strtod(text.c_str() + begin + 4, nullptr);
  }
  std::string kernel, what;
  double blocks = 0;
};

/// The plan that a text names, or the one of its kernel whose number of blocks comes closest.
std::vector<Plan>::iterator find_plan(std::vector<Plan>& plans, const std::string& text) {
  const PlanText wanted(text);
  auto best = plans.end();
  double least = 0;
  for (auto plan = plans.begin(); plan != plans.end(); ++plan) {
    if (plan->kernel != wanted.kernel || plan->what != wanted.what || wanted.blocks < 1) continue;
    const double apart = std::abs(std::log(static_cast<double>(plan->launch.blocks) / wanted.blocks));
    if (best == plans.end() || apart < least) best = plan, least = apart;
  }
  return best;
}

void replace_all(std::string& text, std::string_view what, std::string_view with) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size()))
    text.replace(at, what.size(), with);
}

/// Where a problem's text has its number of images; none: it is no problem's text.
struct Batch {
  double images = 0;
  std::size_t begin = 0, end = 0;
};
Batch batch_of(std::string_view problem) {
  for (const std::string_view format : {" nhwc ", " nchw "}) {
    const std::size_t at = problem.find(format);
    if (at == std::string_view::npos) continue;
    const std::size_t begin = at + format.size(), end = problem.find('x', begin);
    if (end == std::string_view::npos) break;
    return {std::strtod(std::string(problem.substr(begin, end - begin)).c_str(), nullptr), begin, end};
  }
  return {};
}

/// Whether the best of two passes are estimated to take less time than one for both gradients.
bool two_passes_are_faster(Problem problem, const std::vector<Plan>& plans) {
  if (plans.empty()) return true;
  double sum = 0;
  for (const Pass pass : {Pass::Input, Pass::Weight}) {
    problem.pass = pass;
    if (pass == Pass::Weight) problem.hook = Hook::None;
    const std::vector<Plan> single = plans_for(problem);
    if (single.empty()) return false;
    sum += single.front().cost;
  }
  return sum < plans.front().cost;
}

}  // namespace

std::string text_of(const Problem& p) {
  static constexpr const char* kPasses[] = {"forward", "input", "weight", "both"};
  const Conv2dGeometry& g = p.geometry;
  std::ostringstream text;
  text << kPasses[static_cast<int>(p.pass)] << ' ' << name(p.dtype) << (p.channels_last ? " nhwc " : " nchw ")
       << g.batch << 'x' << g.in_channels << 'x' << g.in.h << 'x' << g.in.w << " to " << g.out_channels << 'x'
       << g.out.h << 'x' << g.out.w << " k" << g.kernel.h << 'x' << g.kernel.w << " s" << g.stride.h << 'x'
       << g.stride.w << " p" << g.padding.h << 'x' << g.padding.w << " d" << g.dilation.h << 'x'
       << g.dilation.w << " aligned " << p.input_alignment << ',' << p.output_alignment;
  if (p.bias) text << " bias";
  if (p.transforms) text << " transforms";
  if (p.hardswish) text << " hardswish";
  if (p.hook == Hook::Statistics) text << " statistics";
  if (p.hook == Hook::NormSums) text << " norm_sums";
  if (p.accumulate) text << " accumulate";
  if (p.boxes) text << " boxes";
  if (p.exact_taps) text << " exact_taps";
  return text.str();
}

std::string text_of(const Plan& plan) {
  std::ostringstream text;
  text << plan.kernel << " <<<" << plan.launch.blocks << ", " << plan.launch.threads << ", "
       << plan.launch.shared_bytes << ">>> " << plan.what;
  return text.str();
}

Tuning read_tuning(const std::string& path, const std::string& device) {
  std::ifstream file(path, std::ios::binary);
  LAMELLA_CHECK(Error, file.good(), "tuning file ", path, ": it cannot be read");
  std::ostringstream all;
  all << file.rdbuf();
  return parse(all.str(), "tuning file " + path, device);
}

Tuning shipped_tuning(const std::string& device) {
  const std::string bytes = kMeasured[0].text;
  if (bytes.find("\ndevice " + device + "\n") == std::string::npos) return {};
  try {
    return parse(bytes, "the measured choices", device);
  } catch (const Error& error) {  // of another version: a test finds that, too
    log_message(LogLevel::Warning, std::string(error.what()) + "; plans are chosen by estimate");
    return {};
  }
}

Tuning extend(Tuning tuning) {
  const Tuning measured = tuning;
  for (const auto& [problem, plan] : measured) {
    std::string other = problem, other_plan = plan;
    replace_all(other, " bfloat16 ", " float16 "), replace_all(other_plan, "BFloat16", "Float16");
    tuning.emplace(other, other_plan);
  }
  return tuning;
}

std::vector<std::string> measured_for(const std::string& problem, const Tuning& tuning, double most_times) {
  const Batch of = batch_of(problem);
  if (of.images == 0) return {};
  const std::string_view before = std::string_view(problem).substr(0, of.begin),
                         behind = std::string_view(problem).substr(of.end);
  std::vector<std::pair<double, std::string>> found;
  for (auto it = tuning.lower_bound(std::string(before)); it != tuning.end(); ++it) {
    if (!it->first.starts_with(before)) break;
    const Batch other = batch_of(it->first);
    if (other.images == 0 || std::string_view(it->first).substr(other.end) != behind) continue;
    const double apart = std::abs(std::log(other.images / of.images));
    if (apart <= std::log(most_times)) found.emplace_back(apart, it->second);
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> plans;
  for (auto& [distance, plan] : found) plans.push_back(std::move(plan));
  return plans;
}

void write_tuning(const std::string& path, const std::string& device, const Tuning& tuning) {
  std::string bytes(kFirstLine);
  bytes += "\nversion " LAMELLA_VERSION "\ndevice " + device + "\n";
  for (const auto& [problem, plan] : tuning) bytes += problem + '\t' + plan + '\n';
  bytes += "end " + checksum_of(bytes) + "\n";
  const std::string beside = path + "." + std::to_string(::getpid());
  std::ofstream file(beside, std::ios::binary);
  file << bytes;
  file.close();
  std::error_code error;
  if (file) fs::rename(beside, path, error);
  if (!file || error) {
    std::error_code ignored;
    fs::remove(beside, ignored);
    throw Error("tuning file " + path + ": it cannot be written");
  }
}

Tuning tuning_from_environment(const std::string& device) {
  const char* const path = std::getenv("LAMELLA_TUNING");
  if (path == nullptr || *path == '\0') return {};
  try {
    return read_tuning(path, device);
  } catch (const Error& error) {
    log_message(LogLevel::Warning, std::string(error.what()) + "; plans are chosen by estimate");
    return {};
  }
}

std::vector<Plan> plans_to_try(const Problem& problem, const Tuning& tuning) {
  std::vector<Plan> plans = plans_for(problem);
  const std::string text = text_of(problem);
  constexpr double kSimilar = 4;
  const std::vector<std::string> similar = measured_for(text, tuning, kSimilar);
  const auto is_direct = [](const Plan& plan) { return plan.family == Plan::Family::Direct; };
  const bool is_small = !plans.empty() && is_direct(plans.front());
  for (const std::string& measured : measured_for(text, tuning)) {
    // Small problems and large ones, which direct kernels are not for, do not decide for each other.
    const bool is_similar = std::find(similar.begin(), similar.end(), measured) != similar.end();
    if (is_small && !is_similar) continue;
    if (problem.pass == Pass::Both && measured == kTwoPasses) return {};
    const auto first = find_plan(plans, measured);
    if (first == plans.end() || (is_direct(*first) && !is_similar)) continue;
    std::rotate(plans.begin(), first, first + 1);
    return plans;
  }
  if (problem.pass == Pass::Both && two_passes_are_faster(problem, plans)) plans.clear();
  return plans;
}

}  // namespace lamella::depthwise
