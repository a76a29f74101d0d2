#include "io/npy_header.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>
#include <utility>

#include "core/check.h"

namespace lamella::io::detail {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";

struct Type {
  std::string_view code;
  DType dtype;
};
constexpr Type kTypes[] = {{"b1", DType::Bool},   {"u1", DType::UInt8},   {"i4", DType::Int32},
                           {"i8", DType::Int64},  {"f2", DType::Float16}, {"f4", DType::Float32},
                           {"f8", DType::Float64}};

// The header is a Python dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }. This reads
// the part of Python's grammar that such a dictionary needs.
class Parser {
 public:
  Parser(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  NpyHeader parse() {
    NpyHeader header;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string_view key = string();
      expect(':');
      if (key == "descr" && !std::exchange(descr, true)) {
        type(header);
      } else if (key == "fortran_order" && !std::exchange(order, true)) {
        header.fortran_order = boolean();
      } else if (key == "shape" && !std::exchange(shape, true)) {
        header.shape = tuple();
      } else {
        fail("an unknown or repeated key in its header");
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (!text_.empty()) fail("text after its header");
    if (!descr || !order || !shape) fail("its header lacks descr, fortran_order or shape");
    return header;
  }

 private:
  [[noreturn]] void fail(const char* why) const { throw IoError(source_ + ": corrupt NPY file: " + why); }

  void skip_space() {
    while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\n' || text_[0] == '\t' || text_[0] == '\r'))
      text_.remove_prefix(1);
  }
  bool accept(char c) {
    skip_space();
    if (text_.empty() || text_[0] != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail("its header is no dictionary of the expected form");
  }
  bool accept_word(std::string_view word) {
    skip_space();
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }

  std::string_view string() {
    skip_space();
    if (text_.empty() || (text_[0] != '\'' && text_[0] != '"'))
      fail("its header is no dictionary of the expected form");
    const std::size_t end = text_.find(text_[0], 1);
    if (end == std::string_view::npos) fail("its header ends within a string");
    const std::string_view value = text_.substr(1, end - 1);
    text_.remove_prefix(end + 1);
    return value;
  }
  bool boolean() {
    if (accept_word("True")) return true;
    if (!accept_word("False")) fail("fortran_order is neither True nor False");
    return false;
  }
  std::int64_t number() {
    skip_space();
    std::int64_t value = -1;
    const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
    if (error != std::errc() || value < 0) fail("a size in its shape is not a number from 0 to 2^63 - 1");
    text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
    accept_word("L");  // Python 2 wrote long integers so
    return value;
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> values;
    expect('(');
    while (!accept(')')) {
      values.push_back(number());
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return values;
  }
  void type(NpyHeader& header) {
    skip_space();
    if (text_.starts_with('['))
      throw DTypeError(source_ + ": an NPY file of records; only plain numbers are supported");
    const std::string_view descr = string();
    const std::string_view code = descr.substr(std::min<std::size_t>(1, descr.size()));
    const auto* found =
        std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Type& t) { return t.code == code; });
    const char order = descr.empty() ? ' ' : descr[0];
    const bool one_byte = found != std::end(kTypes) && size_of(found->dtype) == 1;
    if (found == std::end(kTypes) || std::string_view("<>=|").find(order) == std::string_view::npos ||
        (order == '|' && !one_byte)) {
      std::string shown;  // whatever the file says must not reach a terminal unfiltered
      for (const char c : descr.substr(0, 32)) shown += c >= ' ' && c <= '~' ? c : '?';
      throw DTypeError(source_ + ": an NPY file of type '" + shown +
                       "'; supported are bool, uint8, int32, int64, float16, float32 and float64");
    }
    header.dtype = found->dtype;
    header.big_endian = order == '>';
  }

  std::string_view text_;
  const std::string& source_;
};

}  // namespace

NpyHeader parse_npy_header(std::span<const std::uint8_t> bytes, const std::string& source) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  LAMELLA_CHECK(IoError, text.starts_with(kMagic), source, ": not an NPY file");
  LAMELLA_CHECK(IoError, bytes.size() >= 10, source, ": truncated NPY file");
  const int major = bytes[6], minor = bytes[7];
  LAMELLA_CHECK(IoError, major >= 1 && major <= 3 && minor == 0, source, ": NPY format ", major, ".", minor,
                "; known are 1.0, 2.0 and 3.0");
  const std::size_t start = major == 1 ? 10 : 12;
  LAMELLA_CHECK(IoError, bytes.size() >= start, source, ": truncated NPY file");
  std::uint64_t length = bytes[8] | std::uint64_t{bytes[9]} << 8;
  if (major > 1) length |= std::uint64_t{bytes[10]} << 16 | std::uint64_t{bytes[11]} << 24;
  LAMELLA_CHECK(IoError, length <= kMaxNpyHeader, source, ": corrupt NPY file: a header of ", length,
                " bytes");
  LAMELLA_CHECK(IoError, length <= bytes.size() - start, source,
                ": truncated NPY file: its header ends early");
  NpyHeader header = Parser(text.substr(start, length), source).parse();
  header.data_offset = start + length;

  std::uint64_t total = size_of(header.dtype);
  constexpr std::uint64_t kMost = std::uint64_t{1} << 62;
  for (const std::int64_t size : header.shape) {
    const auto factor = static_cast<std::uint64_t>(std::max<std::int64_t>(size, 1));
    LAMELLA_CHECK(IoError, total <= kMost / factor, source, ": corrupt NPY file: its sizes are impossible");
    total *= factor;
  }
  return header;
}

std::string format_npy_header(const NpyHeader& header) {
  const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                  [&](const Type& t) { return t.dtype == header.dtype; });
  LAMELLA_CHECK(DTypeError, type != std::end(kTypes), "the NPY format has no ", name(header.dtype));
  std::string shape;
  for (const std::int64_t size : header.shape)
    shape += std::to_string(size) + (header.shape.size() == 1 ? "," : ", ");
  if (header.shape.size() > 1) shape.resize(shape.size() - 2);
  std::string text =
      lamella::detail::concat("{'descr': '", size_of(header.dtype) == 1 ? '|' : '<', type->code,
                              "', 'fortran_order': False, 'shape': (", shape, "), }");
  // The numbers begin at a multiple of 64 bytes, behind a line end.
  constexpr std::size_t kStart = 10;
  text.append(64 - (kStart + text.size() + 1) % 64, ' ').push_back('\n');
  std::string result(kMagic);
  result += {'\x01', '\x00', static_cast<char>(text.size() & 0xff), static_cast<char>(text.size() >> 8)};
  return result + text;
}

}  // namespace lamella::io::detail
