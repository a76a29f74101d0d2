#include <chrono>
#include <cstdio>

#include "commands.h"
#include "draw.h"

namespace lm = lamella;

namespace {

constexpr int kBrightest = 16;  // of the digits' pixels

/// Some images that were taken for what they are, and the first few that were not.
std::vector<Picture> examples(const lm::data::Dataset& images, const std::vector<std::int64_t>& predictions) {
  constexpr std::size_t kRight = 8, kWrong = 4;
  std::vector<Picture> right, wrong;
  for (std::size_t i = 0; i < predictions.size(); ++i) {
    const lm::data::Example example = images.get(static_cast<std::int64_t>(i));
    const std::string predicted = images.classes()[static_cast<std::size_t>(predictions[i])];
    if (predictions[i] == example.label) {
      if (right.size() < kRight) right.push_back({example.image, "predicted " + predicted});
    } else if (wrong.size() < kWrong) {
      const std::string& actual = images.classes()[static_cast<std::size_t>(example.label)];
      wrong.push_back({example.image, "predicted " + predicted + ", is " + actual});
    }
  }
  right.insert(right.end(), wrong.begin(), wrong.end());
  return right;
}

}  // namespace

int run_demo(const RunOptions& run) {
  const auto start = std::chrono::steady_clock::now();
  TrainOptions options;
  options.data = "digits";
  options.run = run;
  Recipe& recipe = options.recipe;
  recipe.width = 0.35;
  recipe.dropout = 0;
  // Twice the digits' own: MobileNetV2 halves the size three times, even with a small stem.
  recipe.image_size = 16;
  recipe.crop_padding = 2;
  recipe.flip = false;
  recipe.epochs = 15;
  recipe.batch = 32;
  recipe.lr = 0.05;
  recipe.warmup_epochs = 1;
  recipe.ema = 0.98;
  const ImageData data = open_images(options.data, recipe);
  std::printf("MobileNetV2 (width %g) on %lld handwritten digits of 8x8 pixels; %lld others to test it on\n",
              recipe.width, static_cast<long long>(data.train->size()),
              static_cast<long long>(data.test->size()));
  std::fflush(stdout);  // ahead of the progress, which goes to standard error
  const Trained trained = train(data, options);
  if (trained.interrupted) return 130;

  std::printf("\n%s\n", trained.test.confusion.to_string(data.format.classes).c_str());
  std::printf("%s", draw(examples(*data.test, trained.test.predictions), kBrightest).c_str());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("test %s, after %.0f s of training\n", trained.test.summary().c_str(), seconds);
  return 0;
}
