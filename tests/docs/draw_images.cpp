// draw_images FOLDER: train/ and test/ with a folder of JPEG images per class, for the guide about images of
// one's own. Rings and squares of random place, size and colour in noise: easy, but not without learning.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>

#include "lamella/data/transforms.h"
#include "tests/data/encode.h"
#include "tests/support/temp_folder.h"

namespace {

lamella::data::Image draw(bool ring, lamella::data::Random& random) {
  lamella::data::Image image(48, 40 + static_cast<int>(random.below(30)), 3);
  const double size = random.uniform(10, 17), x0 = random.uniform(size, image.width - size),
               y0 = random.uniform(size, image.height - size);
  double colour[3];
  for (double& part : colour) part = random.uniform(120, 255);
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) {
      const double dx = std::abs(x - x0), dy = std::abs(y - y0);
      const double distance = ring ? std::hypot(dx, dy) : std::max(dx, dy);
      for (int c = 0; c < 3; ++c)
        image.row(y)[x * 3 + c] = static_cast<std::uint8_t>(
            random.uniform(0, 40) + (std::abs(distance - size + 2) < 2 ? colour[c] * 0.84 : 0));
    }
  return image;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) return 2;
  std::uint64_t index = 0;
  for (const auto& [part, images] : {std::pair{"train", 80}, std::pair{"test", 20}})
    for (const std::string name : {"ring", "square"})
      for (int i = 0; i < images; ++i) {
        lamella::data::Random random(1, 0, index++);
        char file[16];
        std::snprintf(file, sizeof file, "%03d.jpg", i + 1);
        lamella::test::put_file(std::filesystem::path(arguments[1]) / part / name / file,
                                lamella::test::encode_jpeg(draw(name == "ring", random)));
      }
  return 0;
}
