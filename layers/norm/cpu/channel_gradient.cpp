#include <optional>
#include <type_traits>
#include <vector>

#include "core/parallel.h"
#include "layers/norm/cpu/channel_cut.h"
#include "layers/norm/cpu/channel_sums.h"
#include "layers/norm/cpu/moments.h"
#include "layers/norm/cpu/slope.h"

namespace lamella::cpu {

using detail::ChannelLayout;
using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

namespace {

/// One call of channel_gradient().
template <class T>
struct Job {
  using C = ComputeType<T>;
  const T* given;
  const T* x;
  T* dx;  // null: sums only
  bool accumulate;
  T* passed;              // null without an activation
  const Slope<T>* slope;  // likewise
  const ChannelLayout& layout;
  const ChannelGradient& gradient;

  /// The gradient of the normalisation's result, once all of it has been passed.
  const T* g() const { return passed != nullptr ? passed : given; }
  /// n numbers of it from `at` on, the beginning of a pixel, for the first time.
  const T* pass_pixels(std::int64_t at, std::int64_t n) const {
    if (passed == nullptr) return given + at;
    slope->pixels(given + at, x + at, passed + at, n);
    return passed + at;
  }
  const T* pass_plane(std::int64_t at, std::int64_t channel) const {
    if (passed == nullptr) return given + at;
    slope->plane(given + at, x + at, passed + at, layout.inner, channel);
    return passed + at;
  }

  /// Sums were taken around the mean as rounded to C; this brings them to the mean itself.
  void set_sums(std::int64_t s, double sum, double product) const {
    const double mean = gradient.mean[s];
    gradient.sum[s] = sum;
    gradient.product[s] = product + (static_cast<double>(static_cast<C>(mean)) - mean) * sum;
  }
};

/// The factors of dx = a · g + p · (x − center) + q as the loops use them, for statistics [first, last).
template <class C>
class Factors {
 public:
  template <class T>
  Factors(const Job<T>& job, std::int64_t first, std::int64_t last)
      : count_(last - first), numbers_(static_cast<std::size_t>(4 * count_)) {
    for (std::int64_t s = first; s < last; ++s) {
      const double mean = job.gradient.mean[s], p = job.gradient.p[s];
      const C center = static_cast<C>(mean);
      C* const to = numbers_.data() + (s - first);
      to[0] = static_cast<C>(job.gradient.a[s]);
      to[count_] = static_cast<C>(p);
      to[2 * count_] = static_cast<C>(job.gradient.q[s] + p * (static_cast<double>(center) - mean));
      to[3 * count_] = center;
    }
  }
  const C* a() const { return numbers_.data(); }
  const C* p() const { return a() + count_; }
  const C* q() const { return p() + count_; }
  const C* center() const { return q() + count_; }

 private:
  std::int64_t count_;
  std::vector<C> numbers_;
};

// ---- Rows of channels ----

/// sum[c] and product[c] of `rows` pixels from element `begin` on.
template <class T, class C>
void matrix_sums(const Job<T>& job, std::int64_t begin, std::int64_t rows, const C* mean, double* sum,
                 double* product) {
  const std::int64_t channels = job.layout.channels;
  std::fill(sum, sum + channels, 0.0);
  std::fill(product, product + channels, 0.0);
  const std::int64_t side = pixels_side_by_side(channels), lanes = side * channels;
  const std::int64_t wide = rows / side;
  C block_sum[kTileLanes], block_product[kTileLanes], repeated[kTileLanes];
  const auto add_block = [&](std::int64_t at, std::int64_t step, std::int64_t n_rows, std::int64_t width) {
    const T* const g = job.pass_pixels(begin + at, n_rows * step);
    const T* const x = job.x + begin + at;
    for (std::int64_t tile = 0; tile < width; tile += kTileLanes) {
      const std::int64_t n = std::min(kTileLanes, width - tile);
      for (std::int64_t l = 0; l < n; ++l) {
        repeated[l] = mean[(tile + l) % channels];
        block_sum[l] = block_product[l] = C(0);
      }
      add_products<T, C>(g + tile, x + tile, step, n_rows, n, repeated, block_sum, block_product);
      for (std::int64_t from = 0; from < n;) {  // pixel after pixel onto the channels
        const std::int64_t c = (tile + from) % channels, m = std::min(n - from, channels - c);
        for (std::int64_t l = 0; l < m; ++l) {
          sum[c + l] += static_cast<double>(block_sum[from + l]);
          product[c + l] += static_cast<double>(block_product[from + l]);
        }
        from += m;
      }
    }
  };
  for (std::int64_t r = 0; r < wide; r += kBlockRows)
    add_block(r * lanes, lanes, std::min(kBlockRows, wide - r), lanes);
  if (const std::int64_t rest = rows - wide * side; rest > 0)
    add_block(wide * lanes, channels, rest, channels);
}

template <class T>
void sums_of_rows(const Job<T>& job, const RowCut& cut) {
  using C = ComputeType<T>;
  const ChannelLayout& layout = job.layout;
  const std::int64_t channels = layout.channels, items = layout.segments * cut.chunks;
  std::vector<C> mean(static_cast<std::size_t>(layout.statistics()));
  for (std::int64_t s = 0; s < layout.statistics(); ++s)
    mean[static_cast<std::size_t>(s)] = static_cast<C>(job.gradient.mean[s]);
  std::vector<double> partial(static_cast<std::size_t>(2 * items * channels));
  detail::parallel_for(items, cut.grain(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      const auto [segment, first, rows] = cut.item(item);
      double* const sum = partial.data() + 2 * item * channels;
      matrix_sums(job, first * channels, rows, mean.data() + segment * channels, sum, sum + channels);
    }
  });
  for (std::int64_t segment = 0; segment < layout.segments; ++segment)
    for (std::int64_t c = 0; c < channels; ++c) {
      double sum = 0, product = 0;
      for (std::int64_t k = segment * cut.chunks; k < (segment + 1) * cut.chunks; ++k) {
        sum += partial[static_cast<std::size_t>(2 * k * channels + c)];
        product += partial[static_cast<std::size_t>((2 * k + 1) * channels + c)];
      }
      job.set_sums(segment * channels + c, sum, product);
    }
}

/// What dx holds before it is written: nothing of use, the gradient of another reader, or the result's
/// gradient.
enum class Before { Nothing, Other, Gradient };

template <Before kBefore, class T, class C>
void write_row(const T* g, const T* x, T* __restrict dx, std::int64_t n, const C* a, const C* p, const C* q,
               const C* center) {
  for (std::int64_t i = 0; i < n; ++i) {
    const C gradient = static_cast<C>(kBefore == Before::Gradient ? dx[i] : g[i]);
    C value = a[i] * gradient + (p[i] * (static_cast<C>(x[i]) - center[i]) + q[i]);
    if constexpr (kBefore == Before::Other) value += static_cast<C>(dx[i]);
    dx[i] = static_cast<T>(value);
  }
}

/// Calls write(std::integral_constant<Before, …>) with what job.dx holds.
template <class T, class Write>
void with_before(const Job<T>& job, const Write& write) {
  if (job.passed != nullptr && job.passed == job.dx)
    write(std::integral_constant<Before, Before::Gradient>());
  else if (job.accumulate)
    write(std::integral_constant<Before, Before::Other>());
  else
    write(std::integral_constant<Before, Before::Nothing>());
}

template <class T>
void write_rows(const Job<T>& job, const RowCut& cut) {
  using C = ComputeType<T>;
  const ChannelLayout& layout = job.layout;
  const std::int64_t channels = layout.channels;
  const std::int64_t side = pixels_side_by_side(channels), lanes = side * channels;
  const Factors<C> once(job, 0, layout.statistics());
  std::vector<C> factors(static_cast<std::size_t>(layout.segments * 4 * lanes));
  for (std::int64_t segment = 0; segment < layout.segments; ++segment)
    for (std::int64_t l = 0; l < lanes; ++l) {
      const std::int64_t s = segment * channels + l % channels;
      C* const at = factors.data() + segment * 4 * lanes + l;
      at[0] = once.a()[s], at[lanes] = once.p()[s], at[2 * lanes] = once.q()[s],
      at[3 * lanes] = once.center()[s];
    }
  const std::int64_t items = layout.segments * cut.chunks;
  detail::parallel_for(items, cut.grain(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      // Backwards: what the sums read last may still be in the cache.
      const auto [segment, first, rows] = cut.item(items - 1 - item);
      const C* const f = factors.data() + segment * 4 * lanes;
      for (std::int64_t r = 0; r < rows; r += side) {
        const std::int64_t at = (first + r) * channels, n = std::min(side, rows - r) * channels;
        with_before(job, [&](auto before) {
          write_row<before()>(job.g() + at, job.x + at, job.dx + at, n, f, f + lanes, f + 2 * lanes,
                              f + 3 * lanes);
        });
      }
    }
  });
}

// ---- Planes ----

template <Before kBefore, class T, class C>
void write_plane(const T* g, const T* x, T* __restrict dx, std::int64_t n, C a, C p, C q, C center) {
  for (std::int64_t i = 0; i < n; ++i) {
    const C gradient = static_cast<C>(kBefore == Before::Gradient ? dx[i] : g[i]);
    C value = a * gradient + (p * (static_cast<C>(x[i]) - center) + q);
    if constexpr (kBefore == Before::Other) value += static_cast<C>(dx[i]);
    dx[i] = static_cast<T>(value);
  }
}

/// dx of the plane that begins at `at`; its statistic is number i of `factors`.
template <class T>
void write_plane(const Job<T>& job, const Factors<ComputeType<T>>& factors, std::int64_t i, std::int64_t at) {
  const auto a = factors.a()[i], p = factors.p()[i], q = factors.q()[i], center = factors.center()[i];
  with_before(job, [&](auto before) {
    write_plane<before()>(job.g() + at, job.x + at, job.dx + at, job.layout.inner, a, p, q, center);
  });
}

/// The planes of channels [begin, end) side by side are lanes, images are rows.
template <class T>
void small_plane_sums(const Job<T>& job, std::int64_t begin, std::int64_t end) {
  using C = ComputeType<T>;
  const std::int64_t inner = job.layout.inner, step = job.layout.channels * inner;
  const std::int64_t lanes = (end - begin) * inner, offset = begin * inner;  // lanes <= kTileLanes
  C mean[kTileLanes], block_sum[kTileLanes], block_product[kTileLanes];
  for (std::int64_t c = begin; c < end; ++c)
    std::fill_n(mean + (c - begin) * inner, inner, static_cast<C>(job.gradient.mean[c]));
  std::vector<double> totals(static_cast<std::size_t>(2 * (end - begin)));
  for (std::int64_t i = 0; i < job.layout.images; i += kBlockRows) {
    const std::int64_t images = std::min(kBlockRows, job.layout.images - i);
    for (std::int64_t image = i; image < i + images; ++image)
      for (std::int64_t c = begin; c < end; ++c) job.pass_plane(image * step + c * inner, c);
    std::fill_n(block_sum, lanes, C(0));
    std::fill_n(block_product, lanes, C(0));
    add_products<T, C>(job.g() + i * step + offset, job.x + i * step + offset, step, images, lanes, mean,
                       block_sum, block_product);
    for (std::int64_t c = 0; c < end - begin; ++c) {
      double sum = 0, product = 0;
      for (std::int64_t l = c * inner; l < (c + 1) * inner; ++l) {
        sum += static_cast<double>(block_sum[l]);
        product += static_cast<double>(block_product[l]);
      }
      totals[static_cast<std::size_t>(2 * c)] += sum;
      totals[static_cast<std::size_t>(2 * c + 1)] += product;
    }
  }
  for (std::int64_t c = begin; c < end; ++c)
    job.set_sums(c, totals[static_cast<std::size_t>(2 * (c - begin))],
                 totals[static_cast<std::size_t>(2 * (c - begin) + 1)]);
}

// ---- The whole ----

template <class T>
void run_rows(const Job<T>& job) {
  const RowCut cut(job.layout);
  sums_of_rows(job, cut);
  job.gradient.coefficients(0, job.layout.statistics());
  if (job.dx) write_rows(job, cut);
}

template <class T>
void write_all_planes(const Job<T>& job) {
  const ChannelLayout& layout = job.layout;
  const std::int64_t planes = layout.images * layout.statistics(), grain = plane_grain(layout);
  const Factors<ComputeType<T>> factors(job, 0, layout.statistics());
  const std::int64_t items = (planes + grain - 1) / grain;
  detail::parallel_for(items, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      // Backwards: what the sums read last may still be in the cache.
      const std::int64_t first = (items - 1 - item) * grain, last = std::min(planes, first + grain);
      std::int64_t statistic = statistic_of(layout, first), channel = first % layout.channels;
      for (std::int64_t plane = first; plane < last; ++plane) {
        write_plane(job, factors, statistic, plane * layout.inner);
        ++statistic;
        if (++channel == layout.channels) {
          channel = 0;
          statistic = statistic_of(layout, plane + 1);
        }
      }
    }
  });
}

template <class T>
void run_small_planes(const Job<T>& job) {
  detail::parallel_for(job.layout.channels, channels_together(job.layout),
                       [&](std::int64_t begin, std::int64_t end) { small_plane_sums(job, begin, end); });
  job.gradient.coefficients(0, job.layout.statistics());
  if (job.dx) write_all_planes(job);
}

/// Planes in the order of memory, twice.
template <class T>
void run_planes(const Job<T>& job) {
  using C = ComputeType<T>;
  const ChannelLayout& layout = job.layout;
  const std::int64_t planes = layout.images * layout.statistics(), inner = layout.inner;
  std::vector<std::pair<double, double>> partial(static_cast<std::size_t>(planes));
  detail::parallel_for(planes, plane_grain(layout), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t plane = begin; plane < end; ++plane)
      partial[static_cast<std::size_t>(plane)] =
          products_of_run(job.pass_plane(plane * inner, plane % layout.channels), job.x + plane * inner,
                          inner, static_cast<C>(job.gradient.mean[statistic_of(layout, plane)]));
  });
  for (std::int64_t s = 0; s < layout.statistics(); ++s) {
    double sum = 0, product = 0;
    for (std::int64_t i = 0; i < layout.images; ++i) {
      const auto& part = partial[static_cast<std::size_t>(first_plane(layout, s) + i * layout.channels)];
      sum += part.first;
      product += part.second;
    }
    job.set_sums(s, sum, product);
  }
  job.gradient.coefficients(0, layout.statistics());
  if (job.dx) write_all_planes(job);
}

/// More than any cache holds, but not one channel of it: its planes are still near when their sums are there.
template <class T>
void run_channels(const Job<T>& job) {
  using C = ComputeType<T>;
  const ChannelLayout& layout = job.layout;
  const std::int64_t inner = layout.inner;
  detail::parallel_for(layout.statistics(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t s = begin; s < end; ++s) {
      const C mean = static_cast<C>(job.gradient.mean[s]);
      const std::int64_t first = first_plane(layout, s) * inner, step = layout.channels * inner;
      double sum = 0, product = 0;
      for (std::int64_t i = 0; i < layout.images; ++i) {
        const auto part = products_of_run(job.pass_plane(first + i * step, s % layout.channels),
                                          job.x + first + i * step, inner, mean);
        sum += part.first;
        product += part.second;
      }
      job.set_sums(s, sum, product);
      job.gradient.coefficients(s, s + 1);
      const Factors<C> factors(job, s, s + 1);
      for (std::int64_t i = layout.images - 1; i >= 0; --i) write_plane(job, factors, 0, first + i * step);
    }
  });
}

template <class T>
bool channel_by_channel(const Job<T>& job) {
  const ChannelLayout& layout = job.layout;
  constexpr std::int64_t kCache = 8 << 20, kChannel = 4 << 20;  // bytes of g and x
  const std::int64_t bytes = 2 * static_cast<std::int64_t>(sizeof(T)) * layout.count();
  return job.dx != nullptr && job.gradient.channels_alone && layout.statistics() >= 16 &&
         layout.inner >= 1024 && bytes <= kChannel && bytes * layout.statistics() > kCache;
}

}  // namespace

void channel_gradient(const ConstTensorView& grad, const ConstTensorView& x, const ChannelLayout& layout,
                      const ChannelGradient& gradient, const TensorView& dx, GradientWrite write) {
  if (layout.count() == 0 || layout.statistics() == 0) {
    std::fill_n(gradient.sum, layout.statistics(), 0.0);
    std::fill_n(gradient.product, layout.statistics(), 0.0);
    return;
  }
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    std::optional<Slope<T>> slope;
    if (gradient.slope.activation != detail::PendingActivation::None)
      slope.emplace(gradient.slope, layout.channels,
                    layout.channels_last ? pixels_side_by_side(layout.channels) : 1);
    const Job<T> job{grad.as<T>(),
                     x.as<T>(),
                     dx.as<T>(),
                     write == GradientWrite::Accumulate,
                     slope ? gradient.slope.passed.as<T>() : nullptr,
                     slope ? &*slope : nullptr,
                     layout,
                     gradient};
    if (layout.channels_last)
      run_rows(job);
    else if (planes_are_lanes(layout))
      run_small_planes(job);
    else if (channel_by_channel(job))
      run_channels(job);
    else
      run_planes(job);
  });
}

}  // namespace lamella::cpu
