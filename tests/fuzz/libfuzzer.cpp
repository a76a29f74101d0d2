// One target, which LAMELLA_FUZZ_TARGET names, for libFuzzer.
#include <cstddef>

#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  lamella::fuzz::LAMELLA_FUZZ_TARGET({data, size});
  return 0;
}
