// What the consumer projects compile: the smallest program that needs the headers and the library.
#include <cstdio>
#include <cstring>

#include "lamella/core/dtype.h"
#include "lamella/core/version.h"

namespace lm = lamella;

int main() {
  std::printf("Lamella %s, %s\n", LAMELLA_VERSION, lm::name(lm::float32));
  return std::strcmp(lm::name(lm::float32), "float32") == 0 ? 0 : 1;
}
