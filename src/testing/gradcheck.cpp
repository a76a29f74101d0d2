#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/philox.h"
#include "lamella/autograd/autograd.h"
#include "lamella/tensor/create.h"
#include "lamella/testing.h"
#include "testing/position.h"

namespace lamella::testing {

namespace {

double dot(const Tensor& y, const std::vector<double>& r) {
  const auto values = y.to_vector<double>();
  double total = 0;
  for (std::size_t i = 0; i < values.size(); ++i) total += values[i] * r[i];
  return total;
}

/// Holds an input's numbers, and puts them back at the end, even when the function throws.
class Moved {
 public:
  explicit Moved(const Tensor& input) : input_(input), original_(input.to_vector<double>()) {}
  ~Moved() { assign(original_); }
  Moved(const Moved&) = delete;
  Moved& operator=(const Moved&) = delete;

  void move(std::int64_t element, double by) {
    std::vector<double> values = original_;
    values[static_cast<std::size_t>(element)] += by;
    assign(values);
  }

 private:
  void assign(const std::vector<double>& values) {
    input_.copy_(from_vector(values, input_.shape()).to(input_.device()));
  }

  Tensor input_;
  std::vector<double> original_;
};

/// All of 0 … count - 1, or one at random from each of `most` equal parts.
std::vector<std::int64_t> sample(std::int64_t count, std::int64_t most, std::uint64_t seed) {
  const std::int64_t parts = std::min(count, most);
  std::vector<std::int64_t> chosen;
  for (std::int64_t i = 0; i < parts; ++i) {
    const std::int64_t begin = i * count / parts, end = (i + 1) * count / parts;
    const auto bits = lamella::detail::philox4x32(seed, static_cast<std::uint64_t>(i), 0x5a3bu);
    chosen.push_back(begin + static_cast<std::int64_t>(bits.lane[0]) % (end - begin));
  }
  return chosen;
}

struct Disagreement {
  std::int64_t element = 0;
  double analytic = 0, numeric = 0, error = 0;
};

}  // namespace

Tensor random_tensor(const Shape& shape, std::uint64_t seed, const RandomOptions& options) {
  constexpr std::uint64_t kDraws = 1000;  // one element in a thousand tries finds any gap worth having
  const bool rounds = is_floating(options.dtype);
  const auto fits = [&](double value) {
    for (const double kink : options.kinks)
      if (std::abs(value - kink) < options.gap) return false;
    return value >= options.low && value < options.high;
  };
  std::vector<double> values(static_cast<std::size_t>(shape.product()));
  std::vector<std::size_t> open(values.size());
  for (std::size_t i = 0; i < open.size(); ++i) open[i] = i;
  for (std::uint64_t draw = 0; !open.empty(); ++draw) {
    LAMELLA_CHECK(Error, draw < kDraws, "random_tensor: no ", name(options.dtype), " found in [", options.low,
                  ", ", options.high, ") at least ", options.gap, " away from the kinks");
    std::vector<double> drawn(open.size());
    for (std::size_t k = 0; k < open.size(); ++k) {
      const auto bits = lamella::detail::philox4x32(seed, open[k], 0x7e57u + (draw << 32));
      drawn[k] = options.low + (options.high - options.low) * static_cast<double>(bits.lane[0]) * 0x1p-32;
    }
    // What is kept must hold after rounding, which may reach `high` or a kink's neighbourhood.
    const auto count = static_cast<std::int64_t>(drawn.size());
    const auto kept = rounds ? from_vector(drawn, {count}).to(options.dtype).to_vector<double>() : drawn;
    std::vector<std::size_t> again;
    for (std::size_t k = 0; k < open.size(); ++k) {
      values[open[k]] = kept[k];
      if (!fits(kept[k])) again.push_back(open[k]);
    }
    open = std::move(again);
  }
  Tensor result = from_vector(values, shape).to(options.dtype);
  if (options.format != MemoryFormat::Contiguous) result = result.contiguous(options.format);
  if (options.requires_grad) result.set_requires_grad();
  return result;
}

Comparison gradcheck(const std::function<Tensor(const Tensors&)>& function, const Tensors& inputs,
                     const GradcheckOptions& options) {
  const EnableGrad enable;
  LAMELLA_CHECK(Error, options.max_elements > 0, "gradcheck: max_elements is ", options.max_elements,
                ", expected at least 1");
  std::vector<std::size_t> numbers;
  Tensors checked;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& input = inputs[i];
    if (!input.defined() || !input.requires_grad()) continue;
    LAMELLA_CHECK(Error, input.is_leaf(), "gradcheck: ", input.describe(),
                  " is the result of an operator; detach it");
    LAMELLA_CHECK(DTypeError, input.dtype() == DType::Float64, "gradcheck: ", input.describe(),
                  " is not float64");
    numbers.push_back(i);
    checked.push_back(input);
  }
  LAMELLA_CHECK(Error, !checked.empty(), "gradcheck: no input requires a gradient");

  const Tensor y = function(inputs);
  LAMELLA_CHECK(Error, y.defined(), "gradcheck: the function gave an undefined tensor");
  LAMELLA_CHECK(DTypeError, is_floating(y.dtype()), "gradcheck: the function gave ", y.describe(),
                ", which has no gradient");
  const Tensor cotangent = random_tensor(y.shape(), options.seed + 1, {.dtype = y.dtype()}).to(y.device());
  const std::vector<double> r = cotangent.to_vector<double>();
  Tensors gradients(checked.size());  // without a graph, the gradient it claims is zero
  if (y.requires_grad()) gradients = gradients_of({y}, checked, {cotangent});
  if (const Comparison same = equal_bits(function(inputs), y); !same)
    return {false, "gradcheck: the function is not deterministic; a second call gave " + same.message};

  const NoGrad no_grad;
  for (std::size_t i = 0; i < checked.size(); ++i) {
    const Tensor& input = checked[i];
    const std::int64_t count = input.numel();
    const std::vector<double> analytic = gradients[i].defined()
                                             ? gradients[i].to_vector<double>()
                                             : std::vector<double>(static_cast<std::size_t>(count));
    const auto elements = sample(count, options.max_elements, options.seed + i);
    std::vector<Disagreement> wrong;
    {
      Moved moved(input);
      const auto at = [&](std::int64_t element, double by) {
        moved.move(element, by);
        return dot(function(inputs), r);
      };
      for (const std::int64_t k : elements) {
        Disagreement d{k, analytic[static_cast<std::size_t>(k)]};
        d.numeric = (at(k, options.step) - at(k, -options.step)) / (2 * options.step);
        d.error = std::abs(d.analytic - d.numeric) / std::max(1.0, std::abs(d.numeric));
        if (!(d.error <= options.tolerance)) wrong.push_back(d);
      }
    }
    if (wrong.empty()) continue;
    std::ostringstream out;
    out.precision(12);
    const auto show = [&](const char* which, const Disagreement& d) {
      out << "; " << which << " at " << position(d.element, input.shape()) << ": gradient " << d.analytic
          << ", central difference " << d.numeric << ", error " << d.error;
    };
    out << "gradcheck: input " << numbers[i] << ' ' << input.describe() << ": " << wrong.size() << " of "
        << elements.size() << " checked elements are wrong (allowed error " << options.tolerance << ')';
    show("first", wrong[0]);
    const auto worst =
        std::max_element(wrong.begin(), wrong.end(), [](const Disagreement& a, const Disagreement& b) {
          return !std::isnan(a.error) && (std::isnan(b.error) || a.error < b.error);
        });
    if (worst != wrong.begin()) show("worst", *worst);
    return {false, out.str()};
  }
  return {};
}

}  // namespace lamella::testing
