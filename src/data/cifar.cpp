#include "lamella/data/cifar.h"

#include <string>

#include "core/check.h"
#include "io/file.h"

namespace lamella::data {
namespace {

constexpr std::size_t kSide = 32, kPlane = kSide * kSide, kRecord = 1 + 3 * kPlane;

}  // namespace

DatasetPtr cifar10(const std::vector<std::filesystem::path>& files) {
  LAMELLA_CHECK(IoError, !files.empty(), "cifar10: no files");
  std::vector<std::uint8_t> pixels;
  std::vector<std::int64_t> labels;
  for (const auto& path : files) {
    const auto bytes = lamella::detail::read_file(path);
    LAMELLA_CHECK(IoError, !bytes.empty() && bytes.size() % kRecord == 0, path.string(), ": ", bytes.size(),
                  " bytes; a CIFAR-10 file has a whole number of records of ", kRecord, ", at least one");
    const std::size_t count = bytes.size() / kRecord, before = labels.size();
    pixels.resize((before + count) * 3 * kPlane);
    std::uint8_t* to = pixels.data() + before * 3 * kPlane;
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint8_t* record = bytes.data() + i * kRecord;
      LAMELLA_CHECK(IoError, record[0] <= 9, path.string(), ": label ", int{record[0]}, " in record ", i,
                    " is out of range; CIFAR-10 has 10 classes");
      labels.push_back(record[0]);
      for (std::size_t k = 0; k < kPlane; ++k)
        for (std::size_t c = 0; c < 3; ++c) *to++ = record[1 + c * kPlane + k];
    }
  }
  return memory_dataset(
      std::move(pixels), kSide, kSide, 3, std::move(labels),
      {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"});
}

DatasetPtr cifar10(const std::filesystem::path& folder, bool train) {
  std::vector<std::filesystem::path> files;
  if (train) {
    for (int i = 1; i <= 5; ++i) files.push_back(folder / ("data_batch_" + std::to_string(i) + ".bin"));
  } else {
    files.push_back(folder / "test_batch.bin");
  }
  return cifar10(files);
}

}  // namespace lamella::data
