// Writes what tests/golden/events_tensorboard.py reads back, into the folder that is its argument.
#include <cmath>
#include <cstdio>
#include <exception>
#include <limits>

#include "lamella/io/events.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    {
      lamella::io::EventWriter events(argv[1]);
      for (int step = 0; step < 1000; ++step)
        events.add_scalar("train/loss", step, 1.0 / (1 + step), 1e9 + step);
      events.add_scalar("größe/Ω", 3, -2.5, 1e9);
      for (const double value : {std::numeric_limits<double>::infinity(), -1e300, std::nan("")})
        events.add_scalar("odd", std::isnan(value) ? 3 : value > 0 ? 1 : 2, value, 1e9);
    }
    {  // A run that goes on from step 900.
      lamella::io::EventWriter events(argv[1], {.purge_step = 900});
      for (int step = 900; step < 950; ++step) events.add_scalar("train/loss", step, step, 2e9 + step);
    }
    lamella::io::EventWriter events(argv[1]);
    events.add_scalar("large", std::int64_t{1} << 60, 16777216, 1e9);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
