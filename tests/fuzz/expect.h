#pragma once

#include <cstdio>
#include <cstdlib>

/// Ends the program where `condition` is false: to a fuzzer that is a finding.
#define LAMELLA_FUZZ_EXPECT(condition)                                                       \
  do {                                                                                       \
    if (!(condition)) {                                                                      \
      std::fprintf(stderr, "%s:%d: it does not hold: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)
