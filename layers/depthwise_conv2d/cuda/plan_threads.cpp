#include "layers/depthwise_conv2d/cuda/plan_threads.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace lamella::depthwise {

int registers(const Problem& p, const Shape& s, const ThreadConfig& c) {
  const KernelSizes& k = s.kernel;
  const int out = c.tile.lanes * k.repeat, part = c.tap_rows * k.kernel_w * out;
  const bool is_long = c.tap_rows < k.kernel_h;
  if (s.forward) {
    const int window = ((c.tile.columns - 1) * k.stride_w + k.kernel_w) * c.tile.lanes;
    const int live =
        is_long ? c.tile.rows : std::min(c.tile.rows, (k.kernel_h + k.stride_h - 1) / k.stride_h);
    const int hook = has_statistics(p) ? 3 * out + 1 : 0;
    return 40 + part + live * c.tile.columns * out + window + hook;
  }
  const int window = (c.tile.columns + k.reach_w() - 1) * out;
  const int width = c.tile.columns * k.stride_w * c.tile.lanes;
  const int hook = has_norm_sums(p) ? 5 * c.tile.lanes + 2 : 0;
  if (p.pass == Pass::Input) {
    if (is_long || c.steps > 1) return 40 + part + c.tile.rows * k.stride_h * width + window;
    return 40 + part + k.reach_h() * window + width + hook;
  }
  const int reach = (c.tap_rows + k.stride_h - 1) / k.stride_h;
  return 44 + hook + part * (p.pass == Pass::Both ? 2 : 1) + reach * window +
         width * (p.pass == Pass::Both ? 2 : 1);
}

int products(const Shape& s, const ThreadConfig& c) {
  return c.tile.rows * c.tile.columns * c.tile.lanes * s.kernel.repeat * c.tap_rows * s.kernel.kernel_w;
}

std::string expression(const Problem& p, const Shape& s, const ThreadConfig& c, const char* function,
                       const std::string& rest) {
  const KernelSizes& k = s.kernel;
  std::array<char, 256> text{};
  std::snprintf(text.data(), text.size(), "%s<%s, Kernel<%d, %d, %d, %d, %d>, Tile<%d, %d, %d>, %s>",
                function, type_name(p.dtype), k.kernel_h, k.kernel_w, k.stride_h, k.stride_w,
                k.repeat * c.steps, c.tile.rows, c.tile.columns, c.tile.lanes, rest.c_str());
  return text.data();
}

int promised_blocks(const Problem& p, const Shape& s, const ThreadConfig& c) {
  const int most = c.threads < 128 ? 1024 / c.threads : 8;
  const int wanted = registers(p, s, c);
  int blocks = 1;
  while (blocks < most && registers_of(c.threads, blocks + 1) >= wanted) ++blocks;
  return blocks;
}

std::vector<int> tap_rows_of(const Problem& p, const Shape& s) {
  const KernelSizes& k = s.kernel;
  std::vector<int> choices;
  if (taps_of(k) <= 49) choices.push_back(k.kernel_h);
  if (taps_of(k) < 25 || p.pass == Pass::Both || has_norm_sums(p)) return choices;
  const int unit = s.forward ? 1 : k.stride_h;
  for (const int rows : {unit, 2 * unit, 4 * unit})
    if (rows < k.kernel_h && (rows * k.kernel_w <= 49 || rows == unit)) choices.push_back(rows);
  return choices;
}

}  // namespace lamella::depthwise
