#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/data/image.h"
#include "lamella/tensor/tensor.h"

/// Labelled images on their way to a network: datasets, transforms, batches.
namespace lamella::data {

/// One image and the number of its class.
struct Example {
  Image image;             ///< as decoded
  std::int64_t label = 0;  ///< its class: see Dataset::classes()
};

/// Labelled images by number. Implementations do not change once made, so that any number of threads may
/// call them.
class LAMELLA_API Dataset {
 public:
  virtual ~Dataset() = default;
  /// Number of examples.
  virtual std::int64_t size() const = 0;
  /// Names of the classes; label i is classes()[i].
  virtual const std::vector<std::string>& classes() const = 0;
  /// Example `index` of [0, size()). Throws ShapeError out of range, IoError naming the file where one cannot
  /// be read.
  virtual Example get(std::int64_t index) const = 0;
  /// Label of example `index`, without reading the image where the implementation can.
  virtual std::int64_t label(std::int64_t index) const { return get(index).label; }
  /// What to call example `index` in a message: its path, or "example 17".
  virtual std::string describe(std::int64_t index) const;
};

/// Datasets are shared, never copied.
using DatasetPtr = std::shared_ptr<const Dataset>;

/// The examples of `dataset` at `indices`, in that order; an index may occur more than once. Throws Error for
/// a null dataset, ShapeError for an index out of range.
LAMELLA_API DatasetPtr subset(DatasetPtr dataset, std::vector<std::int64_t> indices);

/// Cuts `dataset` in two at random: round(fraction * size) examples, and the rest, each in their original
/// order. The same (size, fraction, seed) gives the same cut everywhere. Throws Error for a
/// null dataset and unless 0 <= fraction <= 1.
LAMELLA_API std::pair<DatasetPtr, DatasetPtr> split(DatasetPtr dataset, double fraction, std::uint64_t seed);

/// Images held in memory, all of one size: `pixels` is N x height x width x channels bytes, label i belongs
/// to image i. Without `classes` the names are "0", "1", … up to the largest label. Throws ShapeError if
/// sizes do not fit together, a size is not valid (see Image) or a label is out of range.
LAMELLA_API DatasetPtr memory_dataset(std::vector<std::uint8_t> pixels, int height, int width, int channels,
                                      std::vector<std::int64_t> labels,
                                      std::vector<std::string> classes = {});

/// The same from tensors: uint8 images [N,C,H,W] with C 1 or 3 (or [N,H,W]: one channel), in either memory
/// format, and int64 or uint8 labels [N]. Copies them. Throws ShapeError or DTypeError if they do not
/// fit, DeviceError unless on the CPU, Error if undefined.
LAMELLA_API DatasetPtr memory_dataset(const Tensor& images, const Tensor& labels,
                                      std::vector<std::string> classes = {});

}  // namespace lamella::data
