#include "tensor/cpu/map.h"

#include <algorithm>

#include "tensor/cpu/convert.h"
#include "tensor/cpu/strided.h"

namespace lamella::cpu {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

namespace {

/// Numbers in a block: with four inputs and an output, in double, 40 KiB at the most.
constexpr std::int64_t kBlock = 1024;
/// Rows at least this long go one by one; shorter ones several to a block.
constexpr std::int64_t kLongRow = 512;
/// The output and up to kMaxMapInputs inputs; those that are not there have stride 0.
constexpr int kOperands = kMaxMapInputs + 1;

const void* advance(const void* data, DType dtype, std::int64_t elements) {
  return static_cast<const std::byte*>(data) + elements * static_cast<std::int64_t>(size_of(dtype));
}
void* advance(void* data, DType dtype, std::int64_t elements) {
  return static_cast<std::byte*>(data) + elements * static_cast<std::int64_t>(size_of(dtype));
}

template <class C>
class Mapper {
 public:
  Mapper(const TensorView& out, GradientWrite write, std::span<const ConstTensorView> in, MapLoop<C> loop,
         const void* function)
      : out_(out), write_(write), in_(in), loop_(loop), function_(function) {
    std::array<Strides, kOperands> strides;
    strides.fill(Dims::filled(out.shape.size(), 0));
    strides[0] = out.strides;
    for (std::size_t i = 0; i < in.size(); ++i) strides[i + 1] = in[i].strides;
    plan_ = plan_strided<kOperands>(out.shape, strides);
    last_ = static_cast<std::size_t>(plan_.axes - 1);
    direct_out_ = out.dtype == dtype_of<C> && write == GradientWrite::Overwrite;
  }

  void run() const {
    if (plan_.total == 0) return;
    if (plan_.axes == 1 || plan_.size[last_] >= kLongRow)
      for_each_row(plan_,
                   [this](const std::array<std::int64_t, kOperands>& at, std::int64_t n) { row(at, n); });
    else
      tiles();
  }

 private:
  struct Buffers {
    alignas(64) std::array<std::array<C, kBlock>, kOperands> block;
  };

  /// n elements along the last axis.
  void row(const std::array<std::int64_t, kOperands>& at, std::int64_t n) const {
    std::array<const C*, kMaxMapInputs> from{};
    std::array<bool, kMaxMapInputs> direct{};
    bool all_direct = direct_out_ && plan_.stride[0][last_] == 1;
    for (std::size_t i = 0; i < in_.size(); ++i) {
      direct[i] = in_[i].dtype == dtype_of<C> && plan_.stride[i + 1][last_] == 1;
      if (direct[i]) from[i] = in_[i].as<C>() + at[i + 1];
      all_direct = all_direct && direct[i];
    }
    if (all_direct) {
      loop_(function_, from.data(), out_.as<C>() + at[0], n);
      return;
    }
    Buffers buffers;
    for (std::int64_t done = 0; done < n; done += kBlock) {
      const std::int64_t count = std::min(kBlock, n - done);
      for (std::size_t i = 0; i < in_.size(); ++i) {
        const std::int64_t step = plan_.stride[i + 1][last_];
        if (direct[i]) {
          from[i] = in_[i].as<C>() + at[i + 1] + done;
        } else if (step != 0 || done == 0) {  // a repeated number stays where it is
          C* block = buffers.block[i + 1].data();
          from[i] = block;
          const void* source = advance(in_[i].data, in_[i].dtype, at[i + 1] + done * step);
          load(in_[i].dtype, source, step == 0 ? 1 : step, step == 0 ? 1 : count, block);
          if (step == 0) std::fill_n(block + 1, std::min(kBlock, n) - 1, block[0]);
        }
      }
      finish(buffers, from, at[0] + done * plan_.stride[0][last_], plan_.stride[0][last_], count);
    }
  }

  /// Computes a block and stores it with one stride.
  void finish(Buffers& buffers, const std::array<const C*, kMaxMapInputs>& from, std::int64_t at,
              std::int64_t step, std::int64_t n) const {
    if (direct_out_ && step == 1) {
      loop_(function_, from.data(), out_.as<C>() + at, n);
      return;
    }
    loop_(function_, from.data(), buffers.block[0].data(), n);
    store(out_.dtype, buffers.block[0].data(), n, advance(out_.data, out_.dtype, at), step, write_);
  }

  /// Blocks of several short rows.
  void tiles() const {
    const std::size_t next = last_ - 1;
    const std::int64_t width = plan_.size[last_], height = std::min(plan_.size[next], kBlock / width);
    const std::int64_t strips = (plan_.size[next] + height - 1) / height;
    const std::int64_t items = plan_.total / (plan_.size[next] * width) * strips;
    const std::int64_t grain = std::max<std::int64_t>(1, kElementGrain / (height * width));
    detail::parallel_for(items, grain, [&](std::int64_t begin, std::int64_t end) {
      Buffers buffers;
      std::array<std::int64_t, kOperands> held;  // which rows a block holds that repeats them
      held.fill(-1);
      for (std::int64_t item = begin; item < end; ++item) {
        const std::int64_t first = item % strips * height;
        std::array<std::int64_t, kOperands> at{};
        std::int64_t rest = item / strips;
        for (std::size_t axis = next; axis-- > 0;) {
          const std::int64_t position = rest % plan_.size[axis];
          rest /= plan_.size[axis];
          for (std::size_t i = 0; i < kOperands; ++i) at[i] += position * plan_.stride[i][axis];
        }
        for (std::size_t i = 0; i < kOperands; ++i) at[i] += first * plan_.stride[i][next];
        tile(buffers, held, at, std::min(height, plan_.size[next] - first), height, width);
      }
    });
  }

  void tile(Buffers& buffers, std::array<std::int64_t, kOperands>& held,
            const std::array<std::int64_t, kOperands>& at, std::int64_t rows, std::int64_t most_rows,
            std::int64_t width) const {
    const std::size_t next = last_ - 1;
    std::array<const C*, kMaxMapInputs> from{};
    for (std::size_t i = 0; i < in_.size(); ++i) {
      const ConstTensorView& in = in_[i];
      const std::int64_t step = plan_.stride[i + 1][last_], row_step = plan_.stride[i + 1][next];
      C* block = buffers.block[i + 1].data();
      const void* source = advance(in.data, in.dtype, at[i + 1]);
      from[i] = block;
      if (row_step == 0) {
        if (held[i + 1] == at[i + 1]) continue;
        held[i + 1] = at[i + 1];
        load(in.dtype, source, step, width, block);
        for (std::int64_t r = 1; r < most_rows; ++r) std::copy_n(block, width, block + r * width);
      } else if (row_step == step * width) {
        if (in.dtype == dtype_of<C> && step == 1)
          from[i] = static_cast<const C*>(source);
        else
          load(in.dtype, source, step, rows * width, block);
      } else if (step == 0) {
        std::array<C, kBlock> column;
        load(in.dtype, source, row_step, rows, column.data());
        for (std::int64_t r = 0; r < rows; ++r)
          std::fill_n(block + r * width, width, column[static_cast<std::size_t>(r)]);
      } else {
        for (std::int64_t r = 0; r < rows; ++r)
          load(in.dtype, advance(source, in.dtype, r * row_step), step, width, block + r * width);
      }
    }
    const std::int64_t step = plan_.stride[0][last_], row_step = plan_.stride[0][next];
    if (row_step == step * width) {
      finish(buffers, from, at[0], step, rows * width);
      return;
    }
    C* result = buffers.block[0].data();
    loop_(function_, from.data(), result, rows * width);
    for (std::int64_t r = 0; r < rows; ++r)
      store(out_.dtype, result + r * width, width, advance(out_.data, out_.dtype, at[0] + r * row_step), step,
            write_);
  }

  const TensorView& out_;
  GradientWrite write_;
  std::span<const ConstTensorView> in_;
  MapLoop<C> loop_;
  const void* function_;
  StridedPlan<kOperands> plan_;
  std::size_t last_ = 0;
  bool direct_out_ = false;
};

}  // namespace

template <class C>
void load(DType dtype, const void* from, std::int64_t stride, std::int64_t n, C* to) {
  detail::dispatch_all(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    convert_row(static_cast<const T*>(from), stride, to, 1, n);
  });
}

template <class C>
void store(DType dtype, const C* from, std::int64_t n, void* to, std::int64_t stride, GradientWrite write) {
  if (write == GradientWrite::Overwrite) {
    detail::dispatch_all(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      convert_row(from, 1, static_cast<T*>(to), stride, n);
    });
    return;
  }
  if (stride != 1 || dtype != dtype_of<C>) {
    // By way of dense blocks, for which conversions are vector code.
    constexpr std::int64_t kPart = 256;
    std::array<C, kPart> sum;
    for (std::int64_t done = 0; done < n; done += kPart) {
      const std::int64_t count = std::min(kPart, n - done);
      void* const into = advance(to, dtype, done * stride);
      load(dtype, into, stride, count, sum.data());
      for (std::int64_t i = 0; i < count; ++i) sum[static_cast<std::size_t>(i)] += from[done + i];
      store(dtype, sum.data(), count, into, stride, GradientWrite::Overwrite);
    }
    return;
  }
  C* into = static_cast<C*>(to);
  for (std::int64_t i = 0; i < n; ++i) into[i] += from[i];
}

template <class C>
void map(const TensorView& out, GradientWrite write, std::span<const ConstTensorView> in, MapLoop<C> loop,
         const void* function) {
  Mapper<C>(out, write, in, loop, function).run();
}

// NOLINTBEGIN(bugprone-macro-parentheses): a type
#define LAMELLA_MAP_OF(C)                                                                              \
  template void load<C>(DType, const void*, std::int64_t, std::int64_t, C*);                           \
  template void store<C>(DType, const C*, std::int64_t, void*, std::int64_t, GradientWrite);           \
  template void map<C>(const TensorView&, GradientWrite, std::span<const ConstTensorView>, MapLoop<C>, \
                       const void*);
LAMELLA_MAP_OF(float)
LAMELLA_MAP_OF(double)
LAMELLA_MAP_OF(std::int64_t)
// NOLINTEND(bugprone-macro-parentheses)
#undef LAMELLA_MAP_OF

}  // namespace lamella::cpu
