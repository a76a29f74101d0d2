#include <cstdio>

#include "checkpoint.h"
#include "commands.h"
#include "interrupt.h"

namespace lm = lamella;

int run_eval(const EvalOptions& options) {
  const lm::Device device(options.run.device);
  const Checkpoint checkpoint = load_checkpoint(options.checkpoint);
  const auto network = trained_network(checkpoint, device);
  ImageData data = open_images(options.data.empty() ? checkpoint.source : options.data, checkpoint.recipe);
  if (data.format.classes != checkpoint.format.classes || data.format.channels != checkpoint.format.channels)
    throw lm::Error("eval: the images of " + (options.data.empty() ? checkpoint.source : options.data) +
                    " have other classes or channels than " + options.checkpoint.string() +
                    " was trained on");
  data.resized = data.resized || data.format.size != checkpoint.format.size;
  data.format = checkpoint.format;

  lm::data::DataLoader loader = test_loader(data, checkpoint.recipe, options.run.workers, device);
  const Evaluation result = evaluate(*network, loader, "test");
  if (interrupted()) return 130;
  std::printf("%s\n%s\n", result.confusion.to_string(data.format.classes).c_str(), result.summary().c_str());
  return 0;
}
