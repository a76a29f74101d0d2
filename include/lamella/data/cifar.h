#pragma once

#include <filesystem>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/data/dataset.h"

namespace lamella::data {

/// CIFAR-10's binary files (A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009), in
/// memory: each record is a label byte and 3072 bytes of a 32x32 image, plane by plane. Throws IoError naming
/// a file that is missing, empty, cut within a record, or has a label above 9, and for no files at all.
LAMELLA_API DatasetPtr cifar10(const std::vector<std::filesystem::path>& files);

/// data_batch_1.bin … data_batch_5.bin (train) or test_batch.bin of `folder`, where cifar-10-binary.tar.gz
/// was unpacked. Throws as above.
LAMELLA_API DatasetPtr cifar10(const std::filesystem::path& folder, bool train);

}  // namespace lamella::data
