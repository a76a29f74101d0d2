#include "lamella/data/loader.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <new>
#include <string>
#include <utility>

#include "core/allocator.h"
#include "core/check.h"
#include "core/shared_stream.h"
#include "data/batch_queue.h"
#include "data/convert.h"
#include "data/shuffle.h"
#include "lamella/core/random.h"
#include "lamella/core/stream.h"
#include "lamella/tensor/create.h"

namespace lamella::data {

struct DataLoader::State {
  DatasetPtr dataset;
  LoaderOptions options;
  std::optional<detail::NormalizeTable> table;
  std::uint64_t seed = 0;
  std::int64_t batches = 0;
  Stream copies;  // where batches are copied to the device

  std::int64_t epoch = 0, position = 0;            // of the newest loop
  std::int64_t next_epoch = 0, next_position = 0;  // of the one after
  std::uint64_t loops = 0;

  Example load_example(std::int64_t index, std::uint64_t of_epoch) const;
  Batch load_batch(const std::vector<std::int64_t>& order, std::int64_t number, std::uint64_t of_epoch,
                   const std::atomic<bool>& stop) const;
  void send(Batch& batch) const;
  void receive(const Batch& batch) const;
};

namespace {

void check_image(const Image& image) {
  LAMELLA_CHECK(ShapeError,
                image.height >= 1 && image.width >= 1 && (image.channels == 1 || image.channels == 3) &&
                    image.pixels.size() == static_cast<std::size_t>(image.height) * image.row_bytes(),
                "DataLoader: an image of ", image.height, "x", image.width, "x", image.channels, " with ",
                image.pixels.size(), " bytes");
}

// The message of `error`, with the example's name if it is not there yet.
std::string named(const std::exception& error, const std::string& example) {
  const std::string text = error.what();
  return text.find(example) != std::string::npos ? text : text + " (while loading " + example + ")";
}

}  // namespace

Example DataLoader::State::load_example(std::int64_t index, std::uint64_t of_epoch) const {
  try {
    Example example = dataset->get(index);
    const auto classes = static_cast<std::int64_t>(dataset->classes().size());
    LAMELLA_CHECK(ShapeError, example.label >= 0 && example.label < classes, "DataLoader: label ",
                  example.label, " is out of range; there are ", classes, " classes");
    check_image(example.image);
    Random random(seed, of_epoch, static_cast<std::uint64_t>(index));
    for (const Transform& transform : options.transform) {
      example.image = transform(std::move(example.image), random);
      check_image(example.image);
    }
    return example;
  } catch (const OutOfMemoryError&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const IoError& error) {
    throw IoError(named(error, dataset->describe(index)));
  } catch (const ShapeError& error) {
    throw ShapeError(named(error, dataset->describe(index)));
  } catch (const DTypeError& error) {
    throw DTypeError(named(error, dataset->describe(index)));
  } catch (const DeviceError& error) {
    throw DeviceError(named(error, dataset->describe(index)));
  } catch (const std::exception& error) {
    throw Error(named(error, dataset->describe(index)));
  }
}

Batch DataLoader::State::load_batch(const std::vector<std::int64_t>& order, std::int64_t number,
                                    std::uint64_t of_epoch, const std::atomic<bool>& stop) const {
  const std::int64_t begin = number * options.batch, end = std::min(begin + options.batch, dataset->size());
  Batch batch;
  Image first;
  float* images = nullptr;
  std::int64_t* labels = nullptr;
  for (std::int64_t i = begin; i < end; ++i) {
    if (stop.load(std::memory_order_relaxed)) return {};
    const std::int64_t index = order.empty() ? i : order[static_cast<std::size_t>(i)];
    const Example example = load_example(index, of_epoch);
    const Image& image = example.image;
    if (i == begin) {
      first.height = image.height, first.width = image.width, first.channels = image.channels;
      batch.images = empty({end - begin, image.channels, image.height, image.width},
                           {.format = options.memory_format, .pinned = options.device.is_cuda()});
      batch.labels = empty({end - begin}, {.dtype = int64, .pinned = options.device.is_cuda()});
      images = batch.images.mutable_data<float>();
      labels = batch.labels.mutable_data<std::int64_t>();
    }
    LAMELLA_CHECK(
        ShapeError,
        image.height == first.height && image.width == first.width && image.channels == first.channels,
        "DataLoader: ", dataset->describe(index), " is ", image.height, "x", image.width, "x", image.channels,
        ", the first of its batch ", first.height, "x", first.width, "x", first.channels,
        "; a transform must bring all to one size, such as Resize and CenterCrop");
    table->convert(image, options.memory_format, images);
    images += image.pixels.size();
    *labels++ = example.label;
  }
  if (options.batch_transform) {
    Random random(seed, of_epoch, static_cast<std::uint64_t>(number), Random::Purpose::Batch);
    batch = options.batch_transform(std::move(batch), random);
  }
  send(batch);
  return batch;
}

// Queues the copy to the device.
void DataLoader::State::send(Batch& batch) const {
  if (!options.device.is_cuda()) return;
  const StreamGuard guard(copies);
  for (Tensor* tensor : {&batch.images, &batch.labels})
    if (tensor->defined()) *tensor = tensor->pin_memory().to(options.device, true);
}

// What the loop's thread queues from now on comes after the copies.
void DataLoader::State::receive(const Batch& batch) const {
  if (!options.device.is_cuda()) return;
  const Stream stream = current_stream(options.device);
  wait_stream(stream, copies);
  for (const Tensor& tensor : {batch.images, batch.labels})
    if (tensor.defined()) tensor.record_stream(stream);
}

// One epoch under way.
struct DataLoader::Iterator::Run {
  std::shared_ptr<State> state;
  std::uint64_t loop = 0;
  std::uint64_t epoch = 0;
  std::int64_t next = 0;
  std::vector<std::int64_t> order;          // empty: as they come
  std::optional<detail::BatchQueue> queue;  // last: its threads read the rest
};

DataLoader::DataLoader(DatasetPtr dataset, LoaderOptions options) : state_(std::make_shared<State>()) {
  LAMELLA_CHECK(Error, dataset != nullptr, "DataLoader: the dataset is null");
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  LAMELLA_CHECK(Error, options.batch >= 1 && options.batch <= kMost, "DataLoader: batch ", options.batch,
                "; must be at least 1, at most ", kMost);
  LAMELLA_CHECK(Error, options.workers >= 0 && options.workers <= 1024, "DataLoader: ", options.workers,
                " workers; must be in [0, 1024]");
  LAMELLA_CHECK(Error, options.prefetch >= 1 && options.prefetch <= 1024, "DataLoader: prefetch ",
                options.prefetch, "; must be in [1, 1024]");
  for (const Transform& transform : options.transform)
    LAMELLA_CHECK(Error, transform != nullptr, "DataLoader: a transform is empty");
  const std::int64_t size = dataset->size();
  LAMELLA_CHECK(Error, size >= 1, "DataLoader: the dataset is empty");
  LAMELLA_CHECK(Error, !options.drop_last || size >= options.batch, "DataLoader: ", size,
                " examples make no full batch of ", options.batch, ", and drop_last leaves out the rest");
  state_->batches = options.drop_last ? size / options.batch : (size + options.batch - 1) / options.batch;
  state_->table.emplace("DataLoader", options.normalize);
  if (options.device != Device::cpu()) {
    lamella::detail::allocator_of(options.device, "DataLoader");  // says what is missing
    state_->copies = lamella::detail::shared_stream(options.device, lamella::detail::StreamFor::Copies);
  }
  state_->seed = options.seed ? *options.seed : random_state().seed;
  state_->dataset = std::move(dataset);
  state_->options = std::move(options);
}

DataLoader::~DataLoader() = default;
DataLoader::DataLoader(DataLoader&&) noexcept = default;
DataLoader& DataLoader::operator=(DataLoader&&) noexcept = default;

DataLoader::Iterator DataLoader::begin() {
  State& state = *state_;
  auto run = std::make_unique<Iterator::Run>();
  run->state = state_;
  run->loop = ++state.loops;
  run->epoch = static_cast<std::uint64_t>(state.next_epoch);
  run->next = state.next_position;
  state.epoch = state.next_epoch++;
  state.position = std::exchange(state.next_position, 0);
  if (state.options.shuffle)
    run->order =
        detail::shuffled(state.dataset->size(), Random(state.seed, run->epoch, 0, Random::Purpose::Order));
  if (state.options.workers > 0) {
    // The queue dies before the rest of *run, whose address does not change.
    const auto load = [run = run.get()](std::int64_t number, const std::atomic<bool>& stop) {
      return run->state->load_batch(run->order, number, run->epoch, stop);
    };
    run->queue.emplace(state.options.workers, state.options.prefetch, run->next, state.batches, load);
  }
  return Iterator(std::move(run));
}

std::int64_t DataLoader::size() const { return state_->batches; }
const Dataset& DataLoader::dataset() const { return *state_->dataset; }
const LoaderOptions& DataLoader::options() const { return state_->options; }
std::int64_t DataLoader::epoch() const { return state_->epoch; }
std::int64_t DataLoader::position() const { return state_->position; }

void DataLoader::set_epoch(std::int64_t epoch) {
  constexpr std::int64_t kMost = std::numeric_limits<std::uint32_t>::max();
  LAMELLA_CHECK(Error, epoch >= 0 && epoch <= kMost, "DataLoader: epoch ", epoch, "; must be in [0, ", kMost,
                "]");
  state_->next_epoch = epoch;
}

void DataLoader::set_position(std::int64_t batches) {
  LAMELLA_CHECK(Error, batches >= 0 && batches <= size(), "DataLoader: position ", batches,
                "; must be in [0, ", size(), "]");
  state_->next_position = batches;
}

DataLoader::Iterator::Iterator(std::unique_ptr<Run> run) : run_(std::move(run)) { advance(); }
DataLoader::Iterator::Iterator(Iterator&&) noexcept = default;
DataLoader::Iterator& DataLoader::Iterator::operator=(Iterator&&) noexcept = default;
DataLoader::Iterator::~Iterator() = default;

DataLoader::Iterator& DataLoader::Iterator::operator++() {
  LAMELLA_CHECK(Error, run_ != nullptr, "DataLoader: the loop went on after its end");
  advance();
  return *this;
}

void DataLoader::Iterator::advance() {
  current_ = {};
  State& state = *run_->state;
  if (run_->next >= state.batches) {
    run_.reset();
    return;
  }
  static const std::atomic<bool> kGoOn{false};
  try {
    current_ = run_->queue ? run_->queue->take(run_->next)
                           : state.load_batch(run_->order, run_->next, run_->epoch, kGoOn);
  } catch (...) {
    run_.reset();
    throw;
  }
  state.receive(current_);
  ++run_->next;
  if (state.loops == run_->loop) state.position = run_->next;
}

}  // namespace lamella::data
