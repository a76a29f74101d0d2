// Trains MobileNets, tests them and predicts with them: see --help.
#include <lamella/lamella.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <new>
#include <optional>
#include <string>

#include "commands.h"
#include "interrupt.h"
#include "options_file.h"

namespace {

void add_run(CLI::App& app, RunOptions& run, std::optional<int>& threads) {
  app.add_option("--device", run.device, "auto, cpu, cuda or cuda:1")->capture_default_str();
  app.add_option("--workers", run.workers, "threads that load images")->capture_default_str();
  app.add_option("--threads", threads, "threads that compute; by default all cores");
}

/// Says before anything else that there is no such GPU.
void check_device(const std::string& name) {
  if (name == "auto") return;
  const lamella::Device device(name);
  const int count = lamella::cuda_device_count();
  if (device.is_cpu() || device.index < count) return;
  throw lamella::DeviceError(
      "--device " + name + ": " +
      (count > 0 ? "there are " + std::to_string(count) + " GPUs, numbered from 0" : lamella::why_no_gpu()));
}

/// What was given in the place of a subcommand; empty: nothing.
std::string unknown_command(const CLI::App& app) {
  if (!app.get_subcommands().empty() || app.remaining_size() == 0) return "";
  const std::string first = app.remaining().front();
  return first.starts_with('-') ? "" : first;
}

std::string names_of_commands(const CLI::App& app) {
  std::string names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names += (names.empty() ? "" : ", ") + command->get_name();
  return names;
}

void add_summary(CLI::App& app, SummaryOptions& options) {
  CLI::Option* checkpoint = app.add_option("--checkpoint", options.checkpoint, "a saved network");
  const auto add = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->capture_default_str();
  };
  add("--model", options.recipe.model, "v1, v2, v3-small or v3-large")->excludes(checkpoint);
  add("--width", options.recipe.width, "multiplies all channel counts")->excludes(checkpoint);
  add("--stem", options.recipe.stem, "small, imagenet or auto")->excludes(checkpoint);
  add("--classes", options.classes, "outputs of the network")->excludes(checkpoint);
  add("--channels", options.channels, "of the images")->excludes(checkpoint);
  add("--image-size", options.recipe.image_size, "pixels; 0: 224, or as the saved network was trained");
  add("--batch", options.batch, "images that figures are for");
}

int run(int argc, char** argv) {
  CLI::App app{"Trains MobileNets, tests them and predicts with them."};
  app.require_subcommand(1);
  app.set_version_flag("--version", "lamella-mobilenet " LAMELLA_VERSION, "print the version");
  app.option_defaults()->take_last();  // of an option given twice
  add_options_file(app);
  std::optional<int> threads;

  RunOptions demo_options;
  CLI::App& demo =
      *app.add_subcommand("demo", "train a small network on handwritten digits and show the result");
  add_run(demo, demo_options, threads);

  TrainOptions train_options{.checkpoint = "mobilenet.safetensors"};
  CLI::App& train = *app.add_subcommand("train", "train a network and save it after each epoch");
  CLI::Option* data = train.add_option("--data", train_options.data,
                                       "digits (with recipes/digits.json), or a folder: CIFAR-10's .bin "
                                       "files, MNIST's IDX files, or train/ and "
                                       "test/ with a folder of JPEG or PNG images per class");
  train.add_option("--checkpoint", train_options.checkpoint, "the file that is written")
      ->capture_default_str();
  CLI::Option* resume =
      train.add_flag("--resume", train_options.resume,
                     "go on where the checkpoint was written, with its recipe (options of the recipe are "
                     "refused), and with the same --csv, --events, --report, --checkpoint-every, --keep and "
                     "--keep-best, if the .toml beside it is there");
  const auto add = [&train](const char* name, auto& value, const char* help) {
    train.add_option(name, value, help)->capture_default_str();
  };
  add("--checkpoint-every", train_options.checkpoint_every,
      "write it after so many steps, too, not only after each epoch; 0: only then");
  add("--keep", train_options.keep,
      "checkpoints that stay: the newest, and those before it as net.1.safetensors, net.2.safetensors and so "
      "on");
  train.add_flag("--keep-best", train_options.keep_best,
                 "keep that of the highest test accuracy, too, as net.best.safetensors");
  train
      .add_option(
          "--init", train_options.initial,
          "a safetensors file of weights to start with, from PyTorch (torchvision's and timm's names) "
          "or from here; a classifier for other classes starts anew")
      ->excludes(resume);
  train.add_option(
      "--csv", train_options.csv,
      "a file for each epoch's losses, test accuracy, learning rate, images and seconds of training");
  train.add_option("--events", train_options.events, "a folder for the same as TensorBoard's event files");
  train.add_option("--report", train_options.report,
                   "an HTML page about the finished training: curves, confusion matrix, worst images");
  train.add_flag("--capture", train_options.capture,
                 "record a step's launches and replay them: faster where the GPU waits for the CPU");
  const auto add_profile = [](CLI::App& app, ProfileRun& profile, const char* help) {
    CLI::Option* folder = app.add_option("--profile", profile.folder, help);
    app.add_option("--profile-steps", profile.steps, "batches that --profile looks at, after 3 to warm up")
        ->capture_default_str()
        ->needs(folder);
  };
  add_profile(
      train, train_options.profile,
      "instead of training, say where the time and the memory of a step go, and write that and a trace "
      "for ui.perfetto.dev into this folder");
  add_run(train, train_options.run, threads);
  add_recipe_options(train, train_options.recipe);

  EvalOptions eval_options;
  CLI::App& eval = *app.add_subcommand("eval", "test a saved network");
  eval.add_option("--checkpoint", eval_options.checkpoint, "the saved network")->required();
  eval.add_option(
      "--data", eval_options.data,
      "images, as in train, of which only those to test on need be there, or a folder of images per "
      "class; by default what it was trained on");
  add_profile(eval, eval_options.profile,
              "instead of testing, say where the time and the memory of a batch go, as in train");
  eval.add_flag("--confusion", eval_options.confusion, "print how often each class was taken for each");
  add_run(eval, eval_options.run, threads);

  PredictOptions predict_options;
  CLI::App& predict = *app.add_subcommand("predict", "say what is in images");
  predict.add_option("--checkpoint", predict_options.checkpoint, "the saved network")->required();
  predict
      .add_option(
          "images", predict_options.images,
          "JPEG or PNG files; those that cannot be read are named on standard error, the others done, "
          "and the exit status is then 1")
      ->required()
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  predict.add_option("--top", predict_options.top, "classes to print")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000));
  predict.add_flag("--draw", predict_options.draw, "draw the images in the terminal");
  add_run(predict, predict_options.run, threads);

  SummaryOptions summary_options;
  CLI::App& summary = *app.add_subcommand(
      "summary", "list a network's layers with their shapes, parameters, multiply-adds and memory");
  add_summary(summary, summary_options);

  CLI::App& info = *app.add_subcommand("info", "say what this program was built with and can run on");

  try {
    app.parse(argc, argv);
    if (train.parsed() && train_options.resume)
      for (const CLI::Option* option : train.get_options())
        if (option->get_group() == kRecipeOptions && option->count() > 0)
          throw CLI::ExcludesError(option->get_name(), resume->get_name());
    if (train.parsed() && !train_options.resume)
      train_options.options_text =
          options_text(train, train_options.recipe, lamella::Device(train_options.run.device));
    if (train.parsed() && !train_options.resume && data->count() == 0) throw CLI::RequiredError("--data");
  } catch (const CLI::ParseError& error) {
    if (const std::string unknown = unknown_command(app); !unknown.empty() && error.get_exit_code() != 0) {
      std::fprintf(stderr, "there is no command %s; there are %s\nRun with --help for more information.\n",
                   unknown.c_str(), names_of_commands(app).c_str());
      return 2;
    }
    return app.exit(error) == 0 ? 0 : 2;
  }

  if (train.parsed() && train_options.resume && train_options.profile.folder.empty())
    if (const std::string taken = take_up_outputs(train, train_options.checkpoint); !taken.empty())
      std::fprintf(stderr, "resume: as before with%s\n", taken.c_str());
  if (threads) {
    if (*threads < 1) throw lamella::Error("threads is " + std::to_string(*threads) + ", must be 1 or more");
    lamella::set_num_threads(*threads);
  }
  for (const RunOptions* options :
       {&demo_options, &train_options.run, &eval_options.run, &predict_options.run})
    check_device(options->device);
  catch_interrupts();
  if (demo.parsed()) return run_demo(demo_options);
  if (train.parsed()) return run_train(train_options);
  if (eval.parsed()) return run_eval(eval_options);
  if (summary.parsed()) return run_summary(summary_options);
  if (info.parsed()) return run_info();
  return run_predict(predict_options);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const int status = run(argc, argv);
    // Results that nobody got, as on a full disk, are no success.
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return status;
    std::fprintf(stderr, "error: standard output cannot be written\n");
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: there is not enough memory\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
  }
  return 1;
}
