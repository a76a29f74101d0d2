#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "commands.h"
#include "options_file.h"
#include "replace_file.h"
#include "report.h"

namespace lm = lamella;
namespace fs = std::filesystem;

namespace {

/// Says before the training, not after its first epoch, that nothing can be saved there.
void check_place(const fs::path& path, bool replaces = true) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const std::string what = "train: cannot save to " + path.string() + ": ";
  std::error_code error;
  if (!path.has_filename() || fs::is_directory(path, error))
    throw lm::IoError(what + "it is a folder; name a file");
  // Written anew and renamed, a file would take the place of a device such as /dev/null.
  if (replaces && fs::exists(path, error) && !fs::is_regular_file(path, error))
    throw lm::IoError(what + "it is not a regular file");
  if (!fs::is_directory(folder, error)) throw lm::IoError(what + "there is no folder " + folder.string());
  if (access(folder.c_str(), W_OK) != 0)
    throw lm::IoError(what + "no permission to write in " + folder.string());
}

/// What is replaced must be what an earlier training left, or empty.
void check_content(const fs::path& path, bool (*is_ours)(const fs::path&), const std::string& what) {
  std::error_code error;
  if (fs::is_regular_file(path, error) && fs::file_size(path, error) > 0 && !is_ours(path))
    throw lm::IoError("train: " + path.string() + " is there and " + what + "; name another file");
}

/// The same of the checkpoints and of what is written beside them.
void check_contents(const TrainOptions& options) {
  const std::string none = "no checkpoint of this program";
  const auto check = [&](const fs::path& path) { check_content(path, is_checkpoint, none); };
  // One that goes on is read, with its own errors.
  if (!options.resume) {
    check(options.checkpoint);
    check_content(options_path(options.checkpoint), is_options_text,
                  "no options of a training, which are kept beside its checkpoint");
  }
  // Up to the first gap, as CheckpointFiles moves them.
  for (int i = 1; i < options.keep; ++i) {
    const fs::path older = CheckpointFiles::beside(options.checkpoint, std::to_string(i));
    if (!fs::exists(older)) break;
    check(older);
  }
  if (options.keep_best) check(CheckpointFiles::beside(options.checkpoint, "best"));
  if (!options.report.empty()) check_content(options.report, is_report, "no report of a training");
}

/// Of two outputs with one name, one would be lost.
void check_distinct(const TrainOptions& options) {
  std::vector<std::pair<std::string, fs::path>> outputs;
  const auto add = [&](const std::string& name, const fs::path& path) {
    if (path.empty()) return;
    std::error_code error;
    const fs::path real = fs::weakly_canonical(fs::absolute(path, error), error);
    for (const auto& [other, taken] : outputs)
      if (taken == real)
        throw lm::Error("train: " + name + " and " + other + " are one file, " + path.string() +
                        "; name two");
    outputs.emplace_back(name, real);
  };
  add("--checkpoint", options.checkpoint);
  add("the options beside --checkpoint", options_path(options.checkpoint));
  for (int i = 1; i < std::min(options.keep, 100); ++i)
    add("one of --keep", CheckpointFiles::beside(options.checkpoint, std::to_string(i)));
  if (options.keep_best) add("that of --keep-best", CheckpointFiles::beside(options.checkpoint, "best"));
  add("--csv", options.csv);
  add("--report", options.report);
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

/// Batch norms that follow slowly are why a network that has learned fails its tests, and nothing else shows
/// it.
void warn_of_young_norms(const TrainOptions& options, const Trained& trained) {
  // After so many steps, less than one part in ten thousand is left of what running statistics begin with;
  // those of v3 keep 99 % of themselves each step, the others 90 %.
  const int enough = options.recipe.model.starts_with("v3") ? 900 : 100;
  const lm::train::ConfusionMatrix& test = trained.test.confusion;
  std::int64_t largest = 0;
  for (std::int64_t actual = 0; actual < test.classes(); ++actual) {
    std::int64_t images = 0;
    for (std::int64_t taken = 0; taken < test.classes(); ++taken) images += test.at(actual, taken);
    largest = std::max(largest, images);
  }
  const double guessing =
      static_cast<double>(largest) / static_cast<double>(std::max<std::int64_t>(1, test.total()));
  const double learnable = 1 - guessing;
  const bool learned = trained.train_accuracy > guessing + learnable / 3;
  if (trained.steps >= enough || !learned || test.accuracy() > guessing + learnable / 6) return;
  std::fprintf(
      stderr,
      "warning: the accuracy is %.0f %% in training, and hardly better than guessing in the test, after %lld "
      "steps: the running statistics of the batch norms need about %d; take more --epochs or a smaller "
      "--batch\n",
      100 * trained.train_accuracy, static_cast<long long>(trained.steps), enough);
}

}  // namespace

int run_train(TrainOptions options) {
  const bool profiles = !options.profile.folder.empty();
  check(options.profile);
  if (!profiles) {
    check_place(options.checkpoint);
    if (!options.csv.empty()) check_place(options.csv, false);
    if (!options.report.empty()) check_place(options.report);
    check_distinct(options);
    check_contents(options);
  }
  if (options.checkpoint_every < 0)
    throw lm::Error("checkpoint-every is " + std::to_string(options.checkpoint_every) +
                    ", must be 0 or more");
  if (options.capture && !lm::Device(options.run.device).is_cuda())
    throw lm::DeviceError("train: --capture records a GPU's launches, and this is " +
                          lm::Device(options.run.device).to_string() + "; leave it out");
  if (!options.resume) check(options.recipe);
  // Before the checkpoint is read: nobody may replace it from here on.
  std::optional<CheckpointFiles> files;
  if (profiles)
    files.emplace();
  else
    files.emplace(options.checkpoint, options.keep);
  std::optional<Checkpoint> from;
  if (options.resume) {
    from = load_checkpoint(options.checkpoint);
    options.recipe = from->recipe;
    options.data = source_of_images(options.data, *from);
  }
  const ImageData data = open_images(options.data, options.recipe);
  if (from) check_resumes(*from, data, options.data);
  const bool finished = from && from->position.epoch >= options.recipe.epochs;
  if (!finished) say_where(options);
  if (profiles) {
    if (options.capture) std::fprintf(stderr, "profile: of steps whose launches are not captured\n");
    options.csv.clear(), options.events.clear();
    return profile_training(data, options, std::move(from)) ? 0 : 130;
  }
  const Trained trained = train(data, options, *files, std::move(from));
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
  warn_of_young_norms(options, trained);
  if (!options.report.empty()) {
    replace_file(options.report, report_html(data, options, trained));
    std::printf("saved %s\n", options.report.c_str());
  }
  return 0;
}
