#include "lamella/core/dtype.h"

#include "core/check.h"

namespace lamella {
namespace {

struct TypeInfo {
  const char* name;
  std::size_t size;
  bool floating;
  int rank;  // promotion order; the two half types share one
};

// In the order of the enumerators.
constexpr TypeInfo kTypes[] = {
    {"float32", 4, true, 5}, {"float64", 8, true, 6}, {"bfloat16", 2, true, 4}, {"float16", 2, true, 4},
    {"int64", 8, false, 3},  {"int32", 4, false, 2},  {"uint8", 1, false, 1},   {"bool", 1, false, 0},
};

const TypeInfo& info(DType dtype) {
  const auto index = static_cast<std::size_t>(dtype);
  LAMELLA_CHECK(DTypeError, index < std::size(kTypes), "dtype: ", index,
                " is not the number of an element type");
  return kTypes[index];
}

}  // namespace

std::size_t size_of(DType dtype) { return info(dtype).size; }
const char* name(DType dtype) { return info(dtype).name; }
bool is_floating(DType dtype) { return info(dtype).floating; }

DType parse_dtype(const std::string& text) {
  std::string known;
  for (std::size_t i = 0; i < std::size(kTypes); ++i) {
    if (text == kTypes[i].name) return static_cast<DType>(i);
    known += (i == 0 ? "" : ", ") + std::string(kTypes[i].name);
  }
  throw DTypeError("parse_dtype: \"" + text + "\" is not an element type; known are " + known);
}

DType promote(DType a, DType b) {
  if (a == b) return a;
  const int rank_a = info(a).rank, rank_b = info(b).rank;
  if (rank_a == rank_b) return DType::Float32;  // float16 with bfloat16: neither holds the other
  return rank_a > rank_b ? a : b;
}

}  // namespace lamella
