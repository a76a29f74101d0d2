#include "dataset.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "text.h"

namespace lm = lamella;
namespace fs = std::filesystem;

namespace {

// Means and deviations over the training images, in parts of 255: the values that are customary for each set.
const lm::data::Normalize kCifar10{.mean = {0.4914f, 0.4822f, 0.4465f}, .std = {0.2470f, 0.2435f, 0.2616f}};
const lm::data::Normalize kImageNet{.mean = {0.485f, 0.456f, 0.406f}, .std = {0.229f, 0.224f, 0.225f}};
constexpr int kLargestSmall = 64;  // pixels; up to here images keep their size

std::vector<std::uint8_t> mean_colour(const lm::data::Normalize& normalize) {
  std::vector<std::uint8_t> colour;
  for (const float mean : normalize.mean)
    colour.push_back(
        static_cast<std::uint8_t>(std::lround(std::clamp(mean * normalize.scale, 0.0f, 255.0f))));
  return colour;
}

fs::path idx_file(const fs::path& folder, const std::string& name) {
  return fs::exists(folder / name) ? folder / name : folder / (name + ".gz");
}

/// Where the digits are: beside the program where both are installed, else in its sources.
fs::path digits_folder() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path installed = program.parent_path().parent_path() / "share/lamella/data";
  return !error && fs::is_directory(installed, error) ? installed : fs::path(MOBILENET_DATA);
}

ImageData digits() {
  const fs::path folder = digits_folder();
  const lm::data::DatasetPtr all =
      lm::data::idx_dataset(folder / "digits-images-idx3-ubyte.gz", folder / "digits-labels-idx1-ubyte.gz");
  ImageData data;
  std::tie(data.test, data.train) = lm::data::split(all, 0.2, /*seed=*/0);
  data.format.normalize = {.mean = {0.5f}, .std = {0.5f}, .scale = 16.0f};
  return data;
}

fs::path test_folder(const fs::path& folder) {
  return fs::is_directory(folder / "test") ? folder / "test" : folder / "val";
}

/// "bars, dark"; the first few of many. `all` without `known`.
std::string listed(const std::vector<std::string>& all, const std::vector<std::string>& known = {}) {
  constexpr std::size_t kMost = 8;
  std::string list;
  std::size_t count = 0;
  for (const std::string& name : all) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    if (++count <= kMost) list += (count == 1 ? "" : ", ") + visible(name);
  }
  return count > kMost ? list + " and " + std::to_string(count - kMost) + " more" : list;
}

ImageData image_folders(const fs::path& folder) {
  const fs::path test = test_folder(folder);
  if (!fs::is_directory(test))
    throw lm::IoError(folder.string() + ": holds no folder test/ (or val/) beside train/");
  ImageData data;
  data.train = lm::data::image_folder(folder / "train", {.decode_once = true});
  data.test = lm::data::image_folder(test, {.decode_once = true});
  const auto &trained = data.train->classes(), &tested = data.test->classes();
  if (trained != tested) {
    const std::string name = test.filename().string() + '/';
    const std::string lacking = listed(trained, tested), more = listed(tested, trained);
    throw lm::IoError(folder.string() + ": train/ and " + name +
                      " hold different classes: " + (lacking.empty() ? "" : name + " lacks " + lacking) +
                      (lacking.empty() || more.empty() ? "" : "; ") +
                      (more.empty() ? "" : "train/ lacks " + more));
  }
  return data;
}

/// A dataset whose classes have other numbers.
class Renumbered final : public lm::data::Dataset {
 public:
  /// Class i of `of` is `numbers`[i] of `classes`.
  Renumbered(lm::data::DatasetPtr of, std::vector<std::int64_t> numbers, std::vector<std::string> classes)
      : of_(std::move(of)), numbers_(std::move(numbers)), classes_(std::move(classes)) {}

  std::int64_t size() const override { return of_->size(); }
  const std::vector<std::string>& classes() const override { return classes_; }
  lm::data::Example get(std::int64_t index) const override {
    lm::data::Example example = of_->get(index);
    example.label = number(example.label);
    return example;
  }
  std::int64_t label(std::int64_t index) const override { return number(of_->label(index)); }
  std::string describe(std::int64_t index) const override { return of_->describe(index); }

 private:
  std::int64_t number(std::int64_t label) const { return numbers_[static_cast<std::size_t>(label)]; }

  lm::data::DatasetPtr of_;
  std::vector<std::int64_t> numbers_;
  std::vector<std::string> classes_;
};

void check_folder(const std::string& source) {
  if (source.empty()) throw lm::IoError("--data is empty, must be digits or a folder");
  if (!fs::is_directory(source)) throw lm::IoError(source + ": there is no such folder");
}

/// As they lie there.
TestImages find_test_images(const std::string& source) {
  if (source == "digits") {
    const ImageData data = digits();
    return {data.test, data.format.normalize.scale};
  }
  check_folder(source);
  const fs::path folder = source;
  if (fs::exists(folder / "test_batch.bin")) return {lm::data::cifar10(folder, /*train=*/false)};
  if (fs::exists(idx_file(folder, "t10k-images-idx3-ubyte")))
    return {lm::data::idx_dataset(idx_file(folder, "t10k-images-idx3-ubyte"),
                                  idx_file(folder, "t10k-labels-idx1-ubyte"))};
  const fs::path test = test_folder(folder);
  if (!fs::is_directory(test) && fs::is_directory(folder / "train"))
    throw lm::IoError(source + ": holds no folder test/ (or val/) beside train/");
  return {lm::data::image_folder(fs::is_directory(test) ? test : folder, {.decode_once = true})};
}

ImageData find(const std::string& source) {
  if (source == "digits") return digits();
  check_folder(source);
  const fs::path folder = source;
  ImageData data;
  if (fs::exists(folder / "data_batch_1.bin")) {
    data.train = lm::data::cifar10(folder, /*train=*/true);
    data.test = lm::data::cifar10(folder, /*train=*/false);
    data.format.normalize = kCifar10;
  } else if (fs::exists(idx_file(folder, "train-images-idx3-ubyte"))) {
    data.train = lm::data::idx_dataset(idx_file(folder, "train-images-idx3-ubyte"),
                                       idx_file(folder, "train-labels-idx1-ubyte"));
    data.test = lm::data::idx_dataset(idx_file(folder, "t10k-images-idx3-ubyte"),
                                      idx_file(folder, "t10k-labels-idx1-ubyte"), data.train->classes());
    data.format.normalize = {.mean = {0.5f}, .std = {0.5f}};
  } else if (fs::is_directory(folder / "train")) {
    data = image_folders(folder);
    data.format.normalize = kImageNet;
  } else {
    throw lm::IoError(
        source +
        ": holds neither CIFAR-10's data_batch_1.bin, nor MNIST's train-images-idx3-ubyte, nor folders "
        "train/ and test/ with a folder of images per class");
  }
  return data;
}

lm::data::Image change_channels(lm::data::Image image, int channels) {
  if (image.channels == channels) return image;
  lm::data::Image result(image.height, image.width, channels);
  const std::size_t pixels = static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width);
  for (std::size_t i = 0; i < pixels; ++i) {
    if (channels == 3) {
      std::fill_n(&result.pixels[3 * i], 3, image.pixels[i]);
    } else {  // luma of ITU-R BT.601
      const std::uint8_t* rgb = &image.pixels[3 * i];
      result.pixels[i] = static_cast<std::uint8_t>((299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] + 500) / 1000);
    }
  }
  return result;
}

/// What images of the network's size go through, and what those of any other size.
struct BySize {
  int size;
  std::vector<lm::data::Transform> same, other;

  lm::data::Image operator()(lm::data::Image image, lm::data::Random& random) const {
    const bool fits = image.height == size && image.width == size;
    for (const lm::data::Transform& transform : fits ? same : other)
      image = transform(std::move(image), random);
    return image;
  }
};

/// The middle of an image at the scale that the network is tested at; one of the network's size as it is.
BySize middle(int size) {
  const int scaled = size <= kLargestSmall ? size : size * 256 / 224;  // 256 for 224, as is customary
  return {.size = size, .same = {}, .other = {lm::data::Resize(scaled), lm::data::CenterCrop(size)}};
}

/// What most images have as their shorter side, of some from all over the set: as good as all.
int usual_side(const lm::data::Dataset& images) {
  constexpr std::int64_t kLookedAt = 33;
  const std::int64_t count = std::min(images.size(), kLookedAt);
  std::vector<int> sides;
  for (std::int64_t i = 0; i < count; ++i) {
    const lm::data::Image image = images.get(i * (images.size() / count)).image;
    sides.push_back(std::min(image.height, image.width));
  }
  const auto median = sides.begin() + static_cast<std::ptrdiff_t>(sides.size() / 2);
  std::nth_element(sides.begin(), median, sides.end());
  return *median;
}

}  // namespace

lm::MemoryFormat memory_format(const Recipe& recipe) {
  return recipe.memory_format == "contiguous" ? lm::MemoryFormat::Contiguous : lm::MemoryFormat::ChannelsLast;
}

ImageData open_images(const std::string& source, const Recipe& recipe) {
  ImageData data = find(source);
  if (data.train->size() == 0 || data.test->size() == 0) throw lm::IoError(source + ": holds no images");
  data.format.channels = data.train->get(0).image.channels;
  for (const std::string& name : data.train->classes()) data.format.classes.push_back(visible(name));
  data.format.size = recipe.image_size;
  if (data.format.size == 0) {
    const int side = usual_side(*data.train);
    data.format.size = side <= kLargestSmall ? side : 224;
  }
  return data;
}

TestImages open_test_images(const std::string& source, const InputFormat& format) {
  TestImages found = find_test_images(source);
  if (found.images->size() == 0) throw lm::IoError(source + ": holds no images");
  std::vector<std::string> names;
  for (const std::string& name : found.images->classes()) names.push_back(visible(name));
  if (const std::string unknown = listed(names, format.classes); !unknown.empty())
    throw lm::Error("eval: " + source + " has classes that the network was not trained on: " + unknown +
                    "; it knows " + listed(format.classes));
  std::vector<std::int64_t> numbers;
  for (const std::string& name : names)
    numbers.push_back(std::find(format.classes.begin(), format.classes.end(), name) - format.classes.begin());
  const int channels = found.images->get(0).image.channels;
  if (channels != format.channels)
    throw lm::Error("eval: the images of " + source + " have " + std::to_string(channels) +
                    " channels, and the network was trained on " + std::to_string(format.channels));
  found.images = std::make_shared<Renumbered>(found.images, std::move(numbers), format.classes);
  return found;
}

lm::data::DataLoader train_loader(const ImageData& data, const Recipe& recipe, int workers,
                                  lm::Device device) {
  lm::data::LoaderOptions options{
      .batch = recipe.batch, .shuffle = true, .workers = workers, .seed = recipe.seed, .device = device};
  // A last batch of one image would leave batch normalisation without a variance; the next epoch has it
  // elsewhere.
  options.drop_last = data.train->size() > recipe.batch;
  const int size = data.format.size;
  BySize crop = middle(size);
  if (size > kLargestSmall) crop.other = {lm::data::RandomResizedCrop(size)};
  if (recipe.crop_padding > 0) {
    const lm::data::RandomCrop padded(size, recipe.crop_padding);
    crop.same.emplace_back(padded);
    if (size <= kLargestSmall) crop.other.emplace_back(padded);
  }
  options.transform.emplace_back(crop);
  if (recipe.flip) options.transform.emplace_back(lm::data::RandomHorizontalFlip());
  if (recipe.cutout > 0)
    options.transform.emplace_back(lm::data::Cutout(recipe.cutout, mean_colour(data.format.normalize)));
  options.normalize = data.format.normalize;
  options.memory_format = memory_format(recipe);
  if (recipe.mixup > 0)
    options.batch_transform =
        lm::data::Mixup(recipe.mixup, static_cast<std::int64_t>(data.format.classes.size()));
  return lm::data::DataLoader(data.train, options);
}

lm::data::DataLoader test_loader(const ImageData& data, const Recipe& recipe, int workers,
                                 lm::Device device) {
  lm::data::LoaderOptions options{.batch = recipe.batch, .workers = workers, .device = device};
  options.transform = {middle(data.format.size)};
  options.normalize = data.format.normalize;
  options.memory_format = memory_format(recipe);
  return lm::data::DataLoader(data.test, options);
}

lm::Tensor to_input(const lm::data::Image& image, const InputFormat& format) {
  lm::data::Image prepared = change_channels(image, format.channels);
  lm::data::Random unused(0, 0, 0);
  prepared = middle(format.size)(std::move(prepared), unused);
  return lm::data::to_tensor(prepared, format.normalize, lm::MemoryFormat::ChannelsLast);
}
