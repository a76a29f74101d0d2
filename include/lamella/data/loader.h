#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <vector>

#include "lamella/core/device.h"
#include "lamella/core/dtype.h"
#include "lamella/core/export.h"
#include "lamella/data/dataset.h"
#include "lamella/data/transforms.h"
#include "lamella/tensor/shape.h"

namespace lamella::data {

/// How a DataLoader makes batches.
struct LoaderOptions {
  std::int64_t batch = 1;  ///< examples in a batch
  bool shuffle = false;    ///< a new order each epoch
  int workers = 0;         ///< threads that load ahead; 0: the loop's own thread loads, nothing ahead
  bool drop_last = false;  ///< leave out a last batch that is not full
  int prefetch = 2;        ///< finished or begun batches per worker, at most
  /// Of order and transforms; none: the seed of manual_seed().
  std::optional<std::uint64_t> seed = std::nullopt;
  std::vector<Transform> transform = {};                  ///< applied to each image, in this order
  Normalize normalize = {};                               ///< then bytes become float32
  BatchTransform batch_transform = nullptr;               ///< then this changes the batch, such as Mixup
  MemoryFormat memory_format = MemoryFormat::Contiguous;  ///< of the images
  /// Where the loop gets its batches. To a GPU whoever loaded a batch queues its copy, from page-locked
  /// memory and on a stream for such copies: with workers, while the GPU works on the batches before.
  Device device = Device::cpu();
};

/// Batches of a dataset, for a range-based loop:
///
///     DataLoader train(image_folder("train"), {.batch = 128, .shuffle = true, .workers = 2});
///     for (const auto& [images, labels] : train) …
///
/// Each loop is an epoch; order and random transforms depend on (seed, epoch, example) alone: any number of
/// workers gives the same bits. Workers run only while a loop does. An exception while loading is thrown in
/// the loop, when it comes to that batch, with the example's path; errors of Lamella keep their type, others
/// become Error. Images of a batch must have one size when the transforms are done: ShapeError otherwise. One
/// loop at a time.
class LAMELLA_API DataLoader {
 public:
  /// Throws Error for a null or empty dataset, an empty transform, an option out of range (batch at least 1,
  /// workers 0 … 1024, prefetch 1 … 1024), and if drop_last would leave no batch; ShapeError or Error for a
  /// Normalize that does not fit; DeviceError for a device that this build or machine does not have.
  explicit DataLoader(DatasetPtr dataset, LoaderOptions options = {});
  ~DataLoader();
  /// Only the new one may be used afterwards.
  DataLoader(DataLoader&&) noexcept;
  /// Only the new one may be used afterwards.
  DataLoader& operator=(DataLoader&&) noexcept;

  class Iterator;
  /// Begins an epoch: number 0 first, then one more each time, or what set_epoch() said. Stops a loop that
  /// still runs.
  Iterator begin();
  /// What ends the loop.
  std::default_sentinel_t end() const { return {}; }

  /// Batches in a whole epoch.
  std::int64_t size() const;
  /// The dataset that was given.
  const Dataset& dataset() const;
  /// The options that were given.
  const LoaderOptions& options() const;

  /// The epoch of the present loop, or of the last one; 0 before the first.
  std::int64_t epoch() const;
  /// How many batches of that epoch the loop has been given, those skipped by set_position() included.
  std::int64_t position() const;
  /// The next begin() starts epoch `epoch`. Throws Error unless 0 <= epoch < 2^32.
  void set_epoch(std::int64_t epoch);
  /// The next begin() skips `batches` batches (and none after that). To resume where a checkpoint was made:
  /// set_epoch(saved.epoch()), set_position(saved.position()). Throws Error if outside [0, size()].
  void set_position(std::int64_t batches);

 private:
  friend class Iterator;
  struct State;
  std::shared_ptr<State> state_;
};

/// The loop's place in an epoch; its destruction stops the workers.
class LAMELLA_API DataLoader::Iterator {
 public:
  /// What the loop gives.
  using value_type = Batch;
  /// Required of iterators; never computed.
  using difference_type = std::ptrdiff_t;
  /// Only the new one may be used afterwards.
  Iterator(Iterator&&) noexcept;
  /// Only the new one may be used afterwards.
  Iterator& operator=(Iterator&&) noexcept;
  ~Iterator();

  /// The present batch.
  const Batch& operator*() const { return current_; }
  /// The present batch.
  const Batch* operator->() const { return &current_; }
  /// To the next batch: waits for it, and throws what went wrong while it was loaded. Throws Error behind the
  /// end.
  Iterator& operator++();
  /// The same.
  void operator++(int) { ++*this; }
  /// True behind the last batch.
  friend bool operator==(const Iterator& it, std::default_sentinel_t) { return it.run_ == nullptr; }

 private:
  friend class DataLoader;
  struct Run;
  explicit Iterator(std::unique_ptr<Run> run);
  void advance();

  std::unique_ptr<Run> run_;
  Batch current_;
};

}  // namespace lamella::data
