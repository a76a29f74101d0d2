#include "train.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "checkpoint.h"
#include "checkpoint_files.h"
#include "commands.h"
#include "curve.h"
#include "initial.h"
#include "interrupt.h"
#include "network.h"
#include "options_file.h"
#include "report.h"

namespace lm = lamella;

namespace {

std::unique_ptr<lm::optim::Optimizer> make_optimizer(const Recipe& recipe, const lm::Module& network) {
  auto parameters = network.named_parameters();
  std::erase_if(parameters, [](const auto& named) { return !named.second.requires_grad(); });
  if (parameters.empty()) throw lm::Error("freeze: leaves no parameter to train");
  const auto groups = lm::optim::no_decay_groups(parameters, recipe.weight_decay);
  if (recipe.optimizer == "adam")
    return std::make_unique<lm::optim::Adam>(groups, lm::optim::AdamOptions{.lr = recipe.lr});
  if (recipe.optimizer == "adamw")
    return std::make_unique<lm::optim::AdamW>(groups, lm::optim::AdamWOptions{.lr = recipe.lr});
  if (recipe.optimizer == "rmsprop")  // as in the MobileNet papers
    return std::make_unique<lm::optim::RMSprop>(groups, lm::optim::RMSpropOptions{.lr = recipe.lr,
                                                                                  .alpha = 0.9,
                                                                                  .eps = 1e-3,
                                                                                  .momentum = recipe.momentum,
                                                                                  .eps_inside_sqrt = true});
  return std::make_unique<lm::optim::SGD>(
      groups,
      lm::optim::SGDOptions{.lr = recipe.lr, .momentum = recipe.momentum, .nesterov = recipe.momentum > 0});
}

lm::optim::Schedule make_schedule(const Recipe& recipe, std::int64_t steps_per_epoch) {
  const std::int64_t steps = recipe.epochs * steps_per_epoch;
  const auto warmup = static_cast<std::int64_t>(recipe.warmup_epochs * static_cast<double>(steps_per_epoch));
  if (recipe.schedule == "one-cycle") return lm::optim::OneCycle({.total_steps = steps});
  lm::optim::Schedule main = lm::optim::Constant();
  if (recipe.schedule == "cosine")
    main = lm::optim::Cosine({.T_max = std::max<std::int64_t>(1, steps - warmup)});
  if (warmup == 0) return main;
  const lm::optim::LinearWarmup rise(
      {.start_factor = 1.0 / static_cast<double>(warmup), .total_iters = warmup});
  return lm::optim::Sequential({.schedules = {rise, main}, .milestones = {warmup}});
}

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
  Training(const ImageData& data, const TrainOptions& options)
      : data_(data),
        options_(options),
        recipe_(options.recipe),
        device_(options.run.device),
        files_(options.checkpoint, options.keep),
        train_images_(train_loader(data, recipe_, options.run.workers, device_)),
        test_images_(test_loader(data, recipe_, options.run.workers, device_)) {
    if (!options.profile.folder.empty()) profile_.emplace(device_);
    lm::manual_seed(recipe_.seed);
    network_ = make_network(recipe_, data.format);
    network_->to(device_);
    if (!options.initial.empty()) load_initial(*network_, options.initial);
    lm::freeze(*network_, recipe_.freeze);
    optimizer_ = make_optimizer(recipe_, *network_);
    scheduler_.emplace(*optimizer_, make_schedule(recipe_, train_images_.size()));
    if (mixed_type(recipe_) == lm::float16) scaler_.emplace();
    if (recipe_.ema > 0) ema_ = make_ema(*network_, {.decay = recipe_.ema, .warm_up = true});
    if (options.resume) restore(load_checkpoint(options.checkpoint));
    position_.images = data.train->size();
    curve_.emplace(options.csv, position_.epoch);
    // As the curve: what other runs had of these epochs does not count.
    if (!options.events.empty())
      events_.emplace(options.events, lm::io::EventWriterOptions{.purge_step = position_.epoch + 1});
  }

  Trained run() {
    if (!options_.options_text.empty()) save_options(options_.checkpoint, options_.options_text);
    Trained result{.test = {.confusion = lm::train::ConfusionMatrix(
                                static_cast<std::int64_t>(data_.format.classes.size()))}};
    lm::train::Step step(*network_, *optimizer_, step_options());
    for (; position_.epoch < recipe_.epochs; ++position_.epoch, position_.batches = 0) {
      Curve::Line line = train_epoch(step);
      if (!interrupted()) result.test = evaluate(ema_ ? ema_->module() : *network_, test_images_);
      result.interrupted = interrupted();
      if (result.interrupted) break;
      std::printf("epoch %" PRId64 "/%d: test %s\n", position_.epoch + 1, recipe_.epochs,
                  result.test.summary().c_str());
      std::fflush(stdout);
      line.test_accuracy = result.test.confusion.accuracy();
      line.test_loss = result.test.loss;
      curve_->add(line);
      if (events_) add_events(line);
      save_epoch(line.test_accuracy);
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

  Curve::Line train_epoch(lm::train::Step& step) {
    const auto start = std::chrono::steady_clock::now();
    begin_training();
    train_images_.set_epoch(position_.epoch);
    train_images_.set_position(position_.batches);
    const std::int64_t images_left = (train_images_.size() - position_.batches) * recipe_.batch;
    lm::train::Progress progress(
        {.label = epoch_label(), .total = std::min(images_left, data_.train->size())});
    lm::train::Average loss, accuracy;
    double rate = optimizer_->lr(), trained = 0;
    const auto figures = [&] {
      return lm::train::Progress::Figures{{"loss", number(loss.value())},
                                          {"accuracy", number(100 * accuracy.value(), "%.1f %%")},
                                          {"lr", number(optimizer_->lr(), "%.4f")}};
    };
    for (const auto& [images, labels] : train_images_) {
      rate = optimizer_->lr();
      const lm::train::Step::Result result = step(images, labels);
      const auto count = images.size(0);
      trained += static_cast<double>(count);
      position_.batches = train_images_.position();
      loss.add(result.loss, static_cast<double>(count));
      accuracy.add(lm::train::accuracy(result.output, labels), static_cast<double>(count));
      progress.add(count, figures);
      if (interrupted()) break;
      if (due()) save(position_);
    }
    progress.finish();
    lm::set_allow_tf32(false);  // tests give what `eval` will
    return {.epoch = position_.epoch + 1,
            .train_loss = loss.value(),
            .seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
            .learning_rate = rate,
            .images = trained};
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
    const std::int64_t steps = position_.epoch * train_images_.size() + position_.batches;
    return options_.checkpoint_every > 0 && steps % options_.checkpoint_every == 0;
  }

  /// At the end of an epoch.
  void save_epoch(double accuracy) {
    const std::int64_t finished = position_.epoch + 1;
    const bool best = position_.best_epoch == 0 || accuracy > position_.best_accuracy;
    if (best) position_.best_epoch = finished, position_.best_accuracy = accuracy;
    TrainingPosition next = position_;
    next.epoch = finished;
    next.batches = 0;
    save(next);
    if (best && keeps_best()) files_.mark_best();
  }

  bool keeps_best() const { return options_.keep_best && !options_.checkpoint.empty(); }

  void save(TrainingPosition position) {
    if (options_.checkpoint.empty()) return;
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
  const CheckpointFiles files_;
  std::optional<lm::train::Profile> profile_;  // from before the network, to know what its memory is for
  lm::data::DataLoader train_images_;
  lm::data::DataLoader test_images_;
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

Trained train(const ImageData& data, const TrainOptions& options) {
  check(options.recipe);
  return Training(data, options).run();
}

bool profile_training(const ImageData& data, const TrainOptions& options) {
  check(options.recipe);
  return Training(data, options).profile();
}

/// Says before the training, not after its first epoch, that nothing can be saved there.
void check_place(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const std::string what = "train: cannot save to " + path.string() + ": ";
  if (!path.has_filename() || fs::is_directory(path)) throw lm::IoError(what + "it is a folder; name a file");
  if (!fs::is_directory(folder)) throw lm::IoError(what + "there is no folder " + folder.string());
  if (access(folder.c_str(), W_OK) != 0)
    throw lm::IoError(what + "no permission to write in " + folder.string());
}

/// Says on standard error what trains, so that nobody waits for a GPU that is not used.
void say_where(const TrainOptions& options) {
  const lm::Device device(options.run.device);
  std::string where = device.to_string();
  if (device.is_cpu()) where += " (" + std::to_string(lm::num_threads()) + " threads)";
  const bool is_chosen = options.run.device != "auto";
  const std::string why = is_chosen || device.is_cuda() ? "" : "; no GPU: " + lm::why_no_gpu();
  const bool has_precision = device.is_cuda() || options.recipe.precision != "tf32";
  std::fprintf(stderr, "training on %s, %s%s\n", where.c_str(),
               has_precision ? options.recipe.precision.c_str() : "float32", why.c_str());
  if (!has_precision) std::fprintf(stderr, "warning: only GPUs have tf32; on the CPU it is float32\n");
}

int run_train(TrainOptions options) {
  const bool profiles = !options.profile.folder.empty();
  check(options.profile);
  if (!profiles || options.resume) check_place(options.checkpoint);
  if (!options.csv.empty()) check_place(options.csv);
  if (!options.report.empty()) check_place(options.report);
  if (options.checkpoint_every < 0)
    throw lm::Error("checkpoint-every is " + std::to_string(options.checkpoint_every) +
                    ", must be 0 or more");
  if (options.capture && !lm::Device(options.run.device).is_cuda())
    throw lm::DeviceError("train: --capture records a GPU's launches, and this is " +
                          lm::Device(options.run.device).to_string() + "; leave it out");
  Checkpoint checkpoint;
  if (options.resume) {
    checkpoint = load_checkpoint(options.checkpoint);
    checkpoint.tensors = {};  // read again when their turn comes
    options.recipe = checkpoint.recipe;
    if (options.data.empty()) options.data = checkpoint.source;
  }
  check(options.recipe);
  const ImageData data = open_images(options.data, options.recipe);
  if (options.resume) check_resumes(checkpoint, data, options.data);
  const bool finished = options.resume && checkpoint.position.epoch >= options.recipe.epochs;
  if (!finished) say_where(options);
  if (profiles) {
    if (options.capture) std::fprintf(stderr, "profile: of steps whose launches are not captured\n");
    options.csv.clear(), options.events.clear();
    return profile_training(data, options) ? 0 : 130;
  }
  const Trained trained = train(data, options);
  if (trained.interrupted) {
    std::printf("stopped; go on with: lamella-mobilenet train --resume --checkpoint %s\n",
                options.checkpoint.c_str());
    return 130;
  }
  if (finished)
    std::printf("nothing is left to train: all %d epochs of %s are done\n", options.recipe.epochs,
                options.checkpoint.c_str());
  else
    std::printf("saved %s\n", options.checkpoint.c_str());
  if (!options.report.empty()) {
    write_report(options.report, report_html(data, options, trained));
    std::printf("saved %s\n", options.report.c_str());
  }
  return 0;
}
