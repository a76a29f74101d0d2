#include "checkpoint.h"

#include <algorithm>
#include <array>
#include <bit>
#include <fstream>
#include <nlohmann/json.hpp>

#include "network.h"
#include "text.h"

namespace lm = lamella;
using nlohmann::json;

namespace {

/// Of the format. 1 had no checksum.
constexpr int kVersion = 2;
/// Of the metadata that has the version.
constexpr char kVersionName[] = "lamella.mobilenet";

json to_json(const InputFormat& format) {
  return {{"channels", format.channels},     {"size", format.size},
          {"mean", format.normalize.mean},   {"std", format.normalize.std},
          {"scale", format.normalize.scale}, {"classes", format.classes}};
}

InputFormat format_from(const json& value) {
  InputFormat format;
  format.channels = value.at("channels");
  format.size = value.at("size");
  format.normalize.mean = value.at("mean").get<std::vector<float>>();
  format.normalize.std = value.at("std").get<std::vector<float>>();
  format.normalize.scale = value.at("scale");
  format.classes = value.at("classes").get<std::vector<std::string>>();
  for (std::string& name : format.classes) name = visible(name);
  if ((format.channels != 1 && format.channels != 3) || format.size < 1 || format.size > 4096)
    throw lm::Error("images of " + std::to_string(format.channels) + " channels and " +
                    std::to_string(format.size) + " pixels");
  if (format.classes.empty()) throw lm::Error("no classes");
  return format;
}

json to_json(const TrainingPosition& position) {
  json value = {{"epoch", position.epoch},
                {"batches", position.batches},
                {"random", {position.random.seed, position.random.step, position.random.op}},
                {"images", position.images},
                {"best_epoch", position.best_epoch},
                {"best_accuracy", position.best_accuracy}};
  // It has a time, too: between epochs the bits of a checkpoint depend on nothing but the training.
  if (position.batches > 0) value["so_far"] = position.so_far;
  return value;
}

TrainingPosition position_from(const json& value) {
  TrainingPosition position;
  position.epoch = value.at("epoch");
  position.batches = value.at("batches");
  if (position.epoch < 0 || position.batches < 0) throw lm::Error("a negative position");
  position.random = {value.at("random").at(0), value.at("random").at(1), value.at("random").at(2)};
  if (value.contains("so_far")) position.so_far = value.at("so_far").get<EpochSums>();
  position.images = value.value("images", position.images);
  position.best_epoch = value.value("best_epoch", position.best_epoch);
  position.best_accuracy = value.value("best_accuracy", position.best_accuracy);
  return position;
}

const std::string& text(const lm::io::Metadata& metadata, const std::string& name) {
  const auto found = metadata.find(name);
  if (found == metadata.end()) throw lm::Error("its metadata has no \"" + name + '"');
  return found->second;
}

void check_version(const lm::io::SafetensorsFile& file) {
  const std::string& version = text(file.metadata, kVersionName);
  if (version == "1") return;
  const bool number = version.find_first_not_of("0123456789") == std::string::npos;
  if (number && version != std::to_string(kVersion))
    throw lm::Error("its format is " + version + ", and this program reads up to " +
                    std::to_string(kVersion) + "; a newer one wrote it");
  if (!number || !file.checked) throw lm::Error("it is damaged: its version or its checksum cannot be read");
}

// The folder of the images, when its name is not UTF-8, which all texts of such a file must be.
constexpr char kSourceBytes[] = "source_bytes";

std::string to_hex(const std::string& bytes) {
  std::string text;
  for (const char c : bytes)
    for (const int shift : {4, 0}) text += "0123456789abcdef"[static_cast<unsigned char>(c) >> shift & 15];
  return text;
}

std::string from_hex(const std::string& text) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    bytes += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  return bytes;
}

}  // namespace

lm::StateDict Checkpoint::part(const std::string& prefix) const {
  lm::StateDict found;
  for (const auto& [name, tensor] : tensors)
    if (name.starts_with(prefix + '.')) found.set(name.substr(prefix.size() + 1), tensor);
  return found;
}

void add_part(lm::StateDict& tensors, const std::string& prefix, const lm::StateDict& part) {
  for (const auto& [name, tensor] : part) tensors.set(prefix + '.' + name, tensor);
}

void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  const json recipe = checkpoint.recipe;
  const bool plain = is_utf8(checkpoint.source);
  lm::io::Metadata metadata = {{kVersionName, std::to_string(kVersion)},
                               {"source", plain ? checkpoint.source : visible(checkpoint.source)},
                               {"recipe", recipe.dump()},
                               {"format", to_json(checkpoint.format).dump()},
                               {"position", to_json(checkpoint.position).dump()}};
  if (!plain) metadata[kSourceBytes] = to_hex(checkpoint.source);
  lm::io::save_safetensors(path, checkpoint.tensors, metadata, {.checksum = true});
}

bool is_checkpoint(const std::filesystem::path& path) {
  // The header's length, and the header, as JSON: what is none has another length or another first byte.
  constexpr std::uint64_t kLongest = 100'000'000;
  std::ifstream file(path, std::ios::binary);
  std::array<char, 8> prefix{};
  if (!file.read(prefix.data(), prefix.size())) return false;
  const auto length = std::bit_cast<std::uint64_t>(prefix);
  if (length > kLongest || file.peek() != '{') return false;
  std::error_code error;
  std::string header(std::min<std::uint64_t>(length, std::filesystem::file_size(path, error)), '\0');
  if (error) return false;
  file.read(header.data(), static_cast<std::streamsize>(header.size()));
  return header.find('"' + std::string(kVersionName) + '"') != std::string::npos;
}

Checkpoint load_checkpoint(const std::filesystem::path& path) {
  lm::io::SafetensorsFile file = lm::io::load_safetensors_file(path);
  try {
    check_version(file);
    Checkpoint checkpoint{.path = path, .source = text(file.metadata, "source")};
    if (const auto bytes = file.metadata.find(kSourceBytes); bytes != file.metadata.end())
      checkpoint.source = from_hex(bytes->second);
    checkpoint.recipe = json::parse(text(file.metadata, "recipe")).get<Recipe>();
    check(checkpoint.recipe);
    checkpoint.format = format_from(json::parse(text(file.metadata, "format")));
    checkpoint.position = position_from(json::parse(text(file.metadata, "position")));
    checkpoint.tensors = std::move(file.tensors);
    return checkpoint;
  } catch (const std::exception& error) {
    throw lm::IoError(path.string() + " is not a checkpoint of this program: " + error.what());
  }
}

std::string source_of_images(const std::string& given, const Checkpoint& checkpoint) {
  if (!given.empty()) return given;
  const std::string& source = checkpoint.source;
  if (source != "digits" && !std::filesystem::is_directory(source))
    throw lm::IoError(source + ": there is no such folder; it is what " + checkpoint.path.string() +
                      " was trained on: name another with --data");
  return source;
}

void check_resumes(const Checkpoint& checkpoint, const ImageData& data, const std::string& source) {
  const auto fail = [&](const std::string& here, const std::string& there) {
    throw lm::Error("train: " + checkpoint.path.string() + " cannot go on with " + source + ", which has " +
                    here + "; it was trained on " + there + " of " + checkpoint.source);
  };
  const auto compare = [&](std::int64_t here, std::int64_t there, const std::string& what) {
    if (here != there) fail(std::to_string(here) + ' ' + what, std::to_string(there));
  };
  const InputFormat &now = data.format, &then = checkpoint.format;
  compare(static_cast<std::int64_t>(now.classes.size()), static_cast<std::int64_t>(then.classes.size()),
          "classes");
  for (std::size_t c = 0; c < now.classes.size(); ++c)
    if (now.classes[c] != then.classes[c]) fail("the class " + now.classes[c], then.classes[c]);
  compare(now.channels, then.channels, "channels");
  compare(now.size, then.size, "pixels");
  if (checkpoint.position.images > 0)
    compare(data.train->size(), checkpoint.position.images, "images to train on");
}

std::unique_ptr<lm::Module> trained_network(const Checkpoint& checkpoint, lm::Device device) {
  auto network = make_network(checkpoint.recipe, checkpoint.format);
  const lm::StateDict averaged = checkpoint.part("ema.module");
  const lm::LoadReport report =
      network->load_state_dict(averaged.empty() ? checkpoint.part("network") : averaged, {.strict = false});
  if (!report.ok()) {
    const std::size_t wrong = report.missing.size() + report.unexpected.size() + report.mismatched.size();
    std::string first = report.to_string();
    first = first.substr(first.find_first_not_of(' '));
    throw lm::IoError(checkpoint.path.string() + ": " + std::to_string(wrong) +
                      " of its tensors do not fit the network that it describes; the first: " +
                      first.substr(0, first.find('\n')));
  }
  network->to(device);
  network->eval();
  return network;
}
