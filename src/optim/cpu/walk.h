#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "core/check.h"
#include "tensor/cpu/strided.h"
#include "tensor/view.h"

/// Walks over many tensors at once, as if they lay one behind the other, with up to five operands of the same
/// shape and type each.
namespace lamella::cpu {

inline constexpr int kOperands = 5;

struct WalkItem {
  StridedPlan<kOperands> plan;
  std::array<void*, kOperands> data{};  ///< null: no such operand
  unsigned written = 0;                 ///< bit i: operand i is changed
  DType dtype = DType::Float32;
  std::int64_t end = 0;  ///< elements of all items up to this one
};

class WalkList {
 public:
  explicit WalkList(std::size_t count) { items_.reserve(count); }

  /// The first operand sets the order; bit i of `written_mask` says that operand i is changed.
  void add(const std::array<detail::TensorView, kOperands>& operands, unsigned written_mask) {
    WalkItem item;
    std::array<Strides, kOperands> strides;
    for (std::size_t i = 0; i < operands.size(); ++i) {
      strides[i] = operands[i].data != nullptr ? operands[i].strides : operands[0].strides;
      item.data[i] = operands[i].data;
    }
    item.plan = plan_strided<kOperands>(operands[0].shape, strides);
    item.written = written_mask;
    item.dtype = operands[0].dtype;
    item.end = total() + item.plan.total;
    items_.push_back(item);
  }

  std::int64_t total() const { return items_.empty() ? 0 : items_.back().end; }
  std::int64_t chunks() const { return (total() + kElementGrain - 1) / kElementGrain; }
  const std::vector<WalkItem>& items() const { return items_; }

 private:
  std::vector<WalkItem> items_;
};

/// A read operand for WalkList::add().
inline detail::TensorView unwritten(const detail::ConstTensorView& view) {
  return {const_cast<void*>(view.data), view.shape, view.strides, view.dtype, view.device};
}

/// Calls run(pointers, n) for pieces of elements begin … end - 1 of an item, where every operand is a dense
/// row: operands with other strides go through a buffer.
template <class T, class Run>
void walk_item(const WalkItem& item, std::int64_t begin, std::int64_t end, const Run& run) {
  constexpr std::int64_t kBuffer = 256;
  const StridedPlan<kOperands>& plan = item.plan;
  const int inner = plan.axes - 1;
  std::array<std::int64_t, kMaxAxes> index{};
  for (std::int64_t rest = begin, axis = inner; axis >= 0; --axis) {
    index[static_cast<std::size_t>(axis)] = rest % plan.size[static_cast<std::size_t>(axis)];
    rest /= plan.size[static_cast<std::size_t>(axis)];
  }
  bool dense = true;
  for (std::size_t i = 0; i < kOperands; ++i)
    dense = dense && (item.data[i] == nullptr || plan.stride[i][static_cast<std::size_t>(inner)] == 1 ||
                      plan.size[static_cast<std::size_t>(inner)] == 1);
  T buffers[kOperands][kBuffer];
  while (begin < end) {
    const auto row = static_cast<std::size_t>(inner);
    std::int64_t n = std::min(plan.size[row] - index[row], end - begin);
    if (!dense) n = std::min(n, kBuffer);
    std::array<T*, kOperands> at{}, memory{};
    for (std::size_t i = 0; i < kOperands; ++i) {
      if (item.data[i] == nullptr) continue;
      std::int64_t offset = 0;
      for (std::size_t a = 0; a <= row; ++a) offset += index[a] * plan.stride[i][a];
      at[i] = memory[i] = static_cast<T*>(item.data[i]) + offset;
      if (dense) continue;
      at[i] = buffers[i];
      for (std::int64_t k = 0; k < n; ++k) at[i][k] = memory[i][k * plan.stride[i][row]];
    }
    run(at, n);
    for (std::size_t i = 0; !dense && i < kOperands; ++i) {
      if ((item.written >> i & 1u) == 0 || item.data[i] == nullptr) continue;
      for (std::int64_t k = 0; k < n; ++k) memory[i][k * plan.stride[i][row]] = at[i][k];
    }
    begin += n;
    index[row] += n;
    for (std::size_t a = row; a > 0 && index[a] == plan.size[a]; --a) {
      index[a] = 0;
      ++index[a - 1];
    }
  }
}

/// Calls body(item, pointers, n, chunk) for pieces of the items, in parallel: `pointers` is an
/// std::array<T*, kOperands> with T the item's type, and chunk the position in the cut, which follows from
/// the shapes alone; pieces of one chunk come in order, on one thread.
template <class Body>
void walk(const WalkList& list, const Body& body) {
  const std::vector<WalkItem>& items = list.items();
  detail::parallel_for(list.total(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t chunk = begin / kElementGrain;
    auto item = std::upper_bound(items.begin(), items.end(), begin,
                                 [](std::int64_t at, const WalkItem& one) { return at < one.end; });
    for (; begin < end; ++item) {
      const std::int64_t first = item->end - item->plan.total, last = std::min(end, item->end);
      if (first == item->end) continue;  // no elements
      const auto run = [&](const auto& pointers, std::int64_t n) {
        body(static_cast<std::size_t>(item - items.begin()), pointers, n, chunk);
      };
      if (item->dtype == DType::Float32)
        walk_item<float>(*item, begin - first, last - first, run);
      else if (item->dtype == DType::Float64)
        walk_item<double>(*item, begin - first, last - first, run);
      else
        throw DTypeError(detail::concat("expected float32 or float64, got ", name(item->dtype)));
      begin = last;
    }
  });
}

}  // namespace lamella::cpu
