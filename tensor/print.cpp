#include <algorithm>
#include <cmath>
#include <iomanip>
#include <ostream>
#include <sstream>

#include "lamella/autograd/autograd.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

namespace {

/// Axes longer than this are shortened to their first and last kEdge positions.
constexpr std::int64_t kLongest = 12;
constexpr std::int64_t kEdge = 3;

bool is_shown(std::int64_t at, std::int64_t size) {
  return size <= kLongest || at < kEdge || at >= size - kEdge;
}

/// One way to write every number of a tensor, so that columns line up.
class NumberFormat {
 public:
  NumberFormat(const std::vector<double>& shown, bool floating) : floating_(floating) {
    double largest = 0, smallest = INFINITY;
    bool whole = true;
    for (const double value : shown) {
      if (!std::isfinite(value)) continue;
      largest = std::max(largest, std::abs(value));
      if (value != 0) smallest = std::min(smallest, std::abs(value));
      whole = whole && value == std::floor(value);
    }
    scientific_ = floating && (largest >= 1e6 || (largest > 0 && largest < 1e-3) ||
                               (std::isfinite(smallest) && largest / smallest > 1e6));
    decimals_ = !floating ? 0 : whole && !scientific_ ? 0 : 4;
    for (const double value : shown) width_ = std::max(width_, text(value).size());
  }
  std::string text(double value) const {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
    std::ostringstream out;
    if (scientific_)
      out << std::scientific << std::setprecision(4) << value;
    else
      out << std::fixed << std::setprecision(decimals_) << value << (floating_ && decimals_ == 0 ? "." : "");
    return out.str();
  }
  std::size_t width() const { return width_; }

 private:
  bool floating_;
  bool scientific_ = false;
  int decimals_ = 4;
  std::size_t width_ = 0;
};

void print_axis(std::ostream& out, const Tensor& tensor, const NumberFormat& format, int indent) {
  if (tensor.dim() == 0) {
    out << std::setw(static_cast<int>(format.width())) << format.text(tensor.item());
    return;
  }
  out << '[';
  const std::int64_t size = tensor.size(0);
  for (std::int64_t i = 0; i < size; ++i) {
    if (!is_shown(i, size)) {
      if (i == kEdge)
        out << (tensor.dim() == 1 ? ", ..."
                                  : ",\n" + std::string(static_cast<std::size_t>(indent + 1), ' ') + "...");
      continue;
    }
    if (i > 0 && tensor.dim() == 1) out << ", ";
    if (i > 0 && tensor.dim() > 1)
      out << ',' << std::string(static_cast<std::size_t>(tensor.dim() - 1), '\n')
          << std::string(static_cast<std::size_t>(indent + 1), ' ');
    print_axis(out, tensor.select(0, i), format, indent + 1);
  }
  out << ']';
}

void collect(const Tensor& tensor, std::vector<double>& shown) {
  if (tensor.dim() == 0) {
    shown.push_back(tensor.item());
    return;
  }
  for (std::int64_t i = 0; i < tensor.size(0); ++i)
    if (is_shown(i, tensor.size(0))) collect(tensor.select(0, i), shown);
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  if (!tensor.defined()) return out << "Tensor(undefined)";
  const NoGrad no_grad;
  const Tensor plain = tensor.detach().to(Device::cpu());
  std::vector<double> shown;
  collect(plain, shown);
  const NumberFormat format(shown, is_floating(tensor.dtype()));
  std::ostringstream text;
  text << "Tensor(";
  print_axis(text, plain, format, 7);
  text << ", " << tensor.describe() << (tensor.requires_grad() ? ", requires_grad" : "") << ')';
  return out << text.str();
}

}  // namespace lamella
