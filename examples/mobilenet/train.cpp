#include "train.h"

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <exception>
#include <optional>
#include <utility>

#include "curve.h"
#include "epoch_sums.h"
#include "initial.h"
#include "interrupt.h"
#include "network.h"
#include "optimization.h"
#include "options_file.h"

namespace lm = lamella;

namespace {

/// What forward and loss are computed in, if that is another type than the parameters'.
std::optional<lm::DType> mixed_type(const Recipe& recipe) {
  if (recipe.precision == "bfloat16") return lm::bfloat16;
  if (recipe.precision == "float16") return lm::float16;
  return std::nullopt;
}

std::string number(double value, const char* format = "%.3f") {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

/// A network in training, and everything that must survive an interruption.
class Training {
 public:
  Training(const ImageData& data, const TrainOptions& options, const CheckpointFiles& files,
           std::optional<Checkpoint> from)
      : data_(data),
        options_(options),
        recipe_(options.recipe),
        device_(options.run.device),
        files_(files),
        train_images_(train_loader(data, recipe_, options.run.workers, device_)),
        test_images_(test_loader(data, recipe_, options.run.workers, device_)),
        accumulate_(std::min<std::int64_t>(recipe_.accumulate, train_images_.size())),
        updates_(train_images_.size() / accumulate_) {
    if (!options.profile.folder.empty()) profile_.emplace(device_);
    lm::manual_seed(recipe_.seed);
    network_ = make_network(recipe_, data.format);
    network_->to(device_);
    if (!options.initial.empty()) load_initial(*network_, options.initial);
    lm::freeze(*network_, recipe_.freeze);
    optimizer_ = make_optimizer(recipe_, *network_);
    scheduler_.emplace(*optimizer_, make_schedule(recipe_, updates_));
    if (mixed_type(recipe_) == lm::float16) scaler_.emplace();
    if (recipe_.ema > 0) ema_ = make_ema(*network_, {.decay = recipe_.ema, .warm_up = true});
    if (from) restore(*from);
    position_.images = data.train->size();
    curve_.emplace(options.csv, position_.epoch);
    // As the curve: what other runs had of these epochs does not count.
    if (!options.events.empty())
      events_.emplace(options.events, lm::io::EventWriterOptions{.purge_step = position_.epoch + 1});
  }

  Trained run() {
    // Before any checkpoint: whenever the program is killed, there is what it needs to go on or begin again.
    if (!options_.options_text.empty()) save_options(options_.checkpoint, options_.options_text);
    Trained result{.test = {.confusion = lm::train::ConfusionMatrix(
                                static_cast<std::int64_t>(data_.format.classes.size()))}};
    lm::train::Step step(*network_, *optimizer_, step_options());
    for (; position_.epoch < recipe_.epochs; position_ = begin_of_next_epoch()) {
      Curve::Line line = train_epoch(step);
      if (!interrupted()) result.test = evaluate(ema_ ? ema_->module() : *network_, test_images_);
      result.interrupted = interrupted();
      if (result.interrupted) break;
      std::printf("epoch %" PRId64 "/%d: test %s\n", position_.epoch + 1, recipe_.epochs,
                  result.test.summary().c_str());
      std::fflush(stdout);
      line.test_accuracy = result.test.confusion.accuracy();
      line.test_loss = result.test.loss;
      result.train_accuracy = position_.so_far.right / position_.so_far.images;
      result.steps = optimizer_->steps();
      std::exception_ptr failure;
      try {
        curve_->add(line);
        if (events_) add_events(line);
      } catch (const lm::IoError&) {
        failure = std::current_exception();  // that they cannot be written must not cost the epoch's work
      }
      save_epoch(line.test_accuracy);
      if (failure) std::rethrow_exception(failure);
    }
    const bool untested = result.test.confusion.total() == 0;  // it was over when it was resumed
    if (!options_.report.empty() && untested && !result.interrupted) {
      result.test = evaluate(ema_ ? ema_->module() : *network_, test_images_);
      result.interrupted = interrupted();
    }
    result.history = curve_->lines();
    if (result.interrupted && position_.epoch < recipe_.epochs) save(position_);
    return result;
  }

  bool profile() {
    begin_training();
    lm::train::StepOptions eager = step_options();
    eager.capture = false;
    lm::train::Step step(*network_, *optimizer_, eager);
    if (ema_)
      for (const auto& [name, average] : ema_->module().named_parameters())
        profile_->watch(average, lm::train::MemoryPurpose::Optimizer, "average of " + name);
    return profile_steps(
        *profile_, *network_, train_images_,
        [&](const lm::Tensor& images, const lm::Tensor& labels) { step(images, labels); }, options_.profile);
  }

 private:
  std::string epoch_label() const {
    return "epoch " + std::to_string(position_.epoch + 1) + '/' + std::to_string(recipe_.epochs);
  }

  lm::train::StepOptions step_options() {
    const lm::CrossEntropyOptions loss{.label_smoothing = recipe_.label_smoothing};
    return {.loss = [loss](const lm::Tensor& output,
                           const lm::Tensor& target) { return lm::cross_entropy(output, target, loss); },
            .clip_grad_norm = recipe_.clip_grad_norm,
            .accumulate = static_cast<int>(accumulate_),
            .check_every = device_.is_cuda() ? 100 : 1,  // each waits for the GPU
            .scheduler = &*scheduler_,
            .ema = ema_.get(),
            .capture = options_.capture,
            .autocast = mixed_type(recipe_),
            .scaler = scaler_ ? &*scaler_ : nullptr};
  }

  void begin_training() {
    network_->train();
    lm::hold_frozen_norms(*network_);
    lm::set_allow_tf32(recipe_.precision == "tf32");
  }

  /// Batches of an epoch that make whole updates. A last few that do not are left out, as images are that
  /// make no whole batch: the next epoch has them elsewhere.
  std::int64_t batches_per_epoch() const { return updates_ * accumulate_; }

  /// What is left of the epoch; its figures are those of the whole of it.
  Curve::Line train_epoch(lm::train::Step& step) {
    const auto start = std::chrono::steady_clock::now();
    begin_training();
    train_images_.set_epoch(position_.epoch);
    train_images_.set_position(position_.batches);
    const std::int64_t batches_left = batches_per_epoch() - position_.batches;
    lm::train::Progress progress(
        {.label = epoch_label(), .total = std::min(batches_left * recipe_.batch, data_.train->size())});
    const EpochSums before = position_.so_far;
    RunningSum loss(before.loss, device_), right(before.right, device_);
    double images_seen = before.images, rate = before.learning_rate;
    const auto figures = [&] {
      return lm::train::Progress::Figures{{"loss", number(loss.value() / images_seen)},
                                          {"accuracy", number(100 * right.value() / images_seen, "%.1f %%")},
                                          {"lr", number(optimizer_->lr(), "%.4f")}};
    };
    const auto so_far = [&]() -> EpochSums {
      const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
      return {images_seen, loss.value(), right.value(), before.seconds + passed.count(), rate};
    };
    auto batch = train_images_.begin();
    for (; position_.batches < batches_per_epoch() && batch != train_images_.end(); ++batch) {
      const auto& [images, labels] = *batch;
      rate = optimizer_->lr();
      const lm::train::Step::Result result = step(images, labels);
      const auto count = images.size(0);
      images_seen += static_cast<double>(count);
      position_.batches = train_images_.position();
      loss.add(result.loss, static_cast<double>(count));
      right.add(lm::train::accuracy(result.output, labels), static_cast<double>(count));
      progress.add(count, figures);
      if (position_.batches % accumulate_ != 0) continue;  // checkpoints have no gradients
      if (interrupted()) break;
      if (due()) {
        position_.so_far = so_far();
        save(position_);
      }
    }
    progress.finish();
    position_.so_far = so_far();
    lm::set_allow_tf32(false);  // tests give what `eval` will
    const EpochSums& sums = position_.so_far;
    return {.epoch = position_.epoch + 1,
            .train_loss = sums.loss / sums.images,
            .seconds = sums.seconds,
            .learning_rate = sums.learning_rate,
            .images = sums.images};
  }

  void add_events(const Curve::Line& line) {
    events_->add_scalar("loss/train", line.epoch, line.train_loss);
    events_->add_scalar("loss/test", line.epoch, line.test_loss);
    events_->add_scalar("accuracy/test", line.epoch, line.test_accuracy);
    events_->add_scalar("learning_rate", line.epoch, line.learning_rate);
    events_->add_scalar("images_per_second", line.epoch, line.images / line.seconds);
    events_->flush();
  }

  /// Whether --checkpoint-every says so.
  bool due() const {
    const std::int64_t steps = position_.epoch * updates_ + position_.batches / accumulate_;
    return options_.checkpoint_every > 0 && steps % options_.checkpoint_every == 0;
  }

  /// At the end of an epoch.
  void save_epoch(double accuracy) {
    const std::int64_t finished = position_.epoch + 1;
    const bool best = position_.best_epoch == 0 || accuracy > position_.best_accuracy;
    if (best) position_.best_epoch = finished, position_.best_accuracy = accuracy;
    save(begin_of_next_epoch());
    if (best && keeps_best()) files_.mark_best();
  }

  TrainingPosition begin_of_next_epoch() const {
    TrainingPosition next = position_;
    ++next.epoch;
    next.batches = 0;
    next.so_far = {};
    return next;
  }

  bool keeps_best() const { return options_.keep_best && files_.writes(); }

  void save(TrainingPosition position) {
    if (!files_.writes()) return;
    const std::string bad = lm::train::first_non_finite(*network_);
    if (!bad.empty())
      throw lm::train::NonFiniteError("train: " + bad + " is not finite after step " +
                                      std::to_string(optimizer_->steps()) + "; " +
                                      options_.checkpoint.string() + " is left as it was");
    position.random = lm::random_state();
    Checkpoint checkpoint{
        .source = options_.data, .recipe = recipe_, .format = data_.format, .position = position};
    add_part(checkpoint.tensors, "network", network_->state_dict());
    add_part(checkpoint.tensors, "optimizer", optimizer_->state_dict());
    add_part(checkpoint.tensors, "schedule", scheduler_->state_dict());
    if (ema_) add_part(checkpoint.tensors, "ema", ema_->state_dict());
    if (scaler_) add_part(checkpoint.tensors, "scaler", scaler_->state_dict());
    files_.save(checkpoint);
  }

  void restore(const Checkpoint& checkpoint) {
    try {
      network_->load_state_dict(checkpoint.part("network"));
      optimizer_->load_state_dict(checkpoint.part("optimizer"));
      scheduler_->load_state_dict(checkpoint.part("schedule"));
      if (ema_) ema_->load_state_dict(checkpoint.part("ema"));
      if (scaler_) scaler_->load_state_dict(checkpoint.part("scaler"));
    } catch (const lm::Error& error) {
      throw lm::IoError(checkpoint.path.string() +
                        " does not fit the training that it describes: " + error.what());
    }
    position_ = checkpoint.position;
    if (position_.batches > batches_per_epoch() || position_.batches % accumulate_ != 0)
      throw lm::IoError(checkpoint.path.string() + " goes on behind batch " +
                        std::to_string(position_.batches) + ", and an epoch has " + std::to_string(updates_) +
                        " updates of " + std::to_string(accumulate_));
    lm::set_random_state(position_.random);
    // Killed between the two, the best epoch's checkpoint was written but not marked.
    if (keeps_best() && position_.best_epoch == position_.epoch && position_.batches == 0 &&
        position_.epoch > 0)
      files_.mark_best();
  }

  const ImageData& data_;
  const TrainOptions& options_;
  const Recipe recipe_;
  const lm::Device device_;
  const CheckpointFiles& files_;
  std::optional<lm::train::Profile> profile_;  // from before the network, to know what its memory is for
  lm::data::DataLoader train_images_;
  lm::data::DataLoader test_images_;
  const std::int64_t accumulate_;  ///< batches that make an update
  const std::int64_t updates_;     ///< in an epoch
  std::unique_ptr<lm::Module> network_;
  std::unique_ptr<lm::optim::Optimizer> optimizer_;
  std::optional<lm::optim::LrScheduler> scheduler_;
  std::unique_ptr<lm::optim::Ema> ema_;
  std::optional<lm::optim::GradScaler> scaler_;
  TrainingPosition position_;
  std::optional<Curve> curve_;
  std::optional<lm::io::EventWriter> events_;
};

}  // namespace

Trained train(const ImageData& data, const TrainOptions& options, const CheckpointFiles& files,
              std::optional<Checkpoint> from) {
  check(options.recipe);
  return Training(data, options, files, std::move(from)).run();
}

bool profile_training(const ImageData& data, const TrainOptions& options, std::optional<Checkpoint> from) {
  check(options.recipe);
  const CheckpointFiles none;
  return Training(data, options, none, std::move(from)).profile();
}
