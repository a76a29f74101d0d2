#include "io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "core/check.h"
#include "core/shown.h"

namespace lamella::io::detail {

using lamella::detail::concat;
using lamella::detail::shown;

namespace {

constexpr const char* kMetadata = "__metadata__";

constexpr std::array<std::pair<const char*, DType>, 8> kTypes = {{{"F32", DType::Float32},
                                                                  {"F64", DType::Float64},
                                                                  {"BF16", DType::BFloat16},
                                                                  {"F16", DType::Float16},
                                                                  {"I64", DType::Int64},
                                                                  {"I32", DType::Int32},
                                                                  {"U8", DType::UInt8},
                                                                  {"BOOL", DType::Bool}}};

/// Takes the header piece by piece as it is parsed, and nothing that the format does not have: the only
/// structure is {name: {"dtype": text, "shape": [numbers], "data_offsets": [2 numbers]}, "__metadata__":
/// {text: text}}.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  SafetensorsHeader header;
  std::string problem;

  bool null() override { return fail("has a null"); }
  bool boolean(bool) override { return fail("has a boolean"); }
  bool number_float(double, const std::string&) override {
    return fail("has a number that is not whole, or too large");
  }
  bool number_integer(std::int64_t) override { return fail("has a negative number"); }
  bool binary(binary_t&) override { return fail("has binary"); }

  bool number_unsigned(std::uint64_t value) override {
    if (place_ != Place::Numbers) return fail("has a number out of place");
    if (value > static_cast<std::uint64_t>(INT64_MAX)) return fail("has a number above 2^63 - 1");
    if (numbers_.size() >= kMaxAxes)
      return fail(concat("has more than ", kMaxAxes, " numbers in ", field_, " of \"", shown(name_), '"'));
    numbers_.push_back(value);
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::Metadata) {
      header.metadata[field_] = std::move(value);
      return true;
    }
    if (place_ != Place::Tensor || field_ != "dtype") return fail("has a text out of place");
    for (const auto& [text, dtype] : kTypes)
      if (value == text) {
        header.entries.back().dtype = dtype;
        return true;
      }
    return fail(
        concat("gives \"", shown(name_), "\" the type ", shown(value), ", which Lamella does not have"));
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::Start) {
      place_ = Place::Top;
    } else if (place_ == Place::Top && name_ == kMetadata) {
      place_ = Place::Metadata;
    } else if (place_ == Place::Top) {
      place_ = Place::Tensor;
      header.entries.emplace_back().name = name_;
      seen_.clear();
    } else {
      return fail("has an object out of place");
    }
    return true;
  }

  bool key(std::string& value) override {
    if (place_ == Place::Top) {
      if (!names_.insert(value).second) return fail(concat("has \"", shown(value), "\" twice"));
      name_ = std::move(value);
      return true;
    }
    if (place_ == Place::Metadata ? header.metadata.contains(value)
                                  : std::find(seen_.begin(), seen_.end(), value) != seen_.end())
      return fail(concat("has ", shown(value), " twice in \"", shown(name_), '"'));
    if (place_ == Place::Tensor && value != "dtype" && value != "shape" && value != "data_offsets")
      return fail(concat("has an unknown field ", shown(value), " in \"", shown(name_), '"'));
    if (place_ == Place::Tensor) seen_.push_back(value);
    field_ = std::move(value);
    return true;
  }

  bool end_object() override {
    if (place_ == Place::Tensor && seen_.size() != 3)
      return fail(concat("lacks dtype, shape or data_offsets of \"", shown(name_), '"'));
    place_ = place_ == Place::Top ? Place::End : Place::Top;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::Tensor || field_ == "dtype") return fail("has an array out of place");
    place_ = Place::Numbers;
    numbers_.clear();
    return true;
  }

  bool end_array() override {
    place_ = Place::Tensor;
    SafetensorsEntry& entry = header.entries.back();
    if (field_ == "shape") {
      for (const std::uint64_t size : numbers_) entry.shape.push_back(static_cast<std::int64_t>(size));
      return true;
    }
    if (numbers_.size() != 2) return fail(concat("does not give \"", shown(name_), "\" two data_offsets"));
    entry.begin = numbers_[0];
    entry.end = numbers_[1];
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return fail(concat("is not valid JSON near byte ", position));
  }

  /// A text, number or array alone is JSON, but no header.
  bool complete() const { return place_ == Place::End; }

 private:
  enum class Place : std::uint8_t { Start, Top, Metadata, Tensor, Numbers, End };

  bool fail(std::string what) {
    if (problem.empty()) problem = std::move(what);
    return false;
  }

  Place place_ = Place::Start;
  std::string name_;   // key at the top
  std::string field_;  // key below it
  std::vector<std::string> seen_;
  std::vector<std::uint64_t> numbers_;
  std::unordered_set<std::string> names_;
};

/// Elements times their size; false where that exceeds 63 bits. A size of 0 counts as 1 there: a tensor
/// without elements has strides, and those must not overflow either.
bool count_bytes(const SafetensorsEntry& entry, std::uint64_t& bytes) {
  bytes = size_of(entry.dtype);
  bool empty = false;
  for (const std::int64_t size : entry.shape) {
    empty = empty || size == 0;
    const auto factor = static_cast<std::uint64_t>(std::max<std::int64_t>(size, 1));
    if (factor > static_cast<std::uint64_t>(INT64_MAX) / bytes) return false;
    bytes *= factor;
  }
  if (empty) bytes = 0;
  return true;
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_bytes,
                                           const std::string& where) {
  // The parser would take a zero byte for the end, whatever follows, and skip a mark of byte order: other
  // readers take neither.
  LAMELLA_CHECK(IoError, text.find('\0') == std::string_view::npos, where, ": its header has a zero byte");
  LAMELLA_CHECK(IoError, !text.starts_with("\xef\xbb\xbf"), where,
                ": its header begins with a byte order mark");
  HeaderReader reader;
  const bool parsed = nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  LAMELLA_CHECK(IoError, parsed && reader.complete(), where, ": its header ",
                reader.problem.empty() ? "is not an object" : reader.problem);
  SafetensorsHeader header = std::move(reader.header);

  std::vector<const SafetensorsEntry*> order;
  for (const SafetensorsEntry& entry : header.entries) {
    std::uint64_t bytes = 0;
    LAMELLA_CHECK(IoError, count_bytes(entry, bytes), where, ": the shape of \"", shown(entry.name), "\", ",
                  entry.shape.to_string(), ", overflows");
    LAMELLA_CHECK(IoError, entry.begin <= entry.end && entry.end <= data_bytes, where, ": \"",
                  shown(entry.name), "\" has bytes ", entry.begin, " to ", entry.end, " of ", data_bytes,
                  " in the file");
    LAMELLA_CHECK(IoError, entry.end - entry.begin == bytes, where, ": \"", shown(entry.name), "\" has ",
                  entry.end - entry.begin, " bytes, but ", entry.shape.to_string(), ' ',
                  lamella::name(entry.dtype), " takes ", bytes);
    order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(), [](const SafetensorsEntry* a, const SafetensorsEntry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  std::uint64_t at = 0;
  for (const SafetensorsEntry* entry : order) {
    LAMELLA_CHECK(IoError, entry->begin == at, where, ": \"", shown(entry->name), "\" begins at byte ",
                  entry->begin, ", but what lies before it ends at ", at);
    at = entry->end;
  }
  LAMELLA_CHECK(IoError, at == data_bytes, where, ": its tensors take ", at, " bytes, but it has ",
                data_bytes);
  return header;
}

std::string format_safetensors_header(const SafetensorsHeader& header) {
  const auto quoted = [](const std::string& text) {
    try {
      return nlohmann::json(text).dump();
    } catch (const nlohmann::json::exception&) {
      throw Error("save_safetensors: a name or text is not UTF-8");
    }
  };
  std::string text = "{";
  const auto next = [](std::string& list, const std::string& part) {
    if (list.back() != '{') list += ',';
    list += part;
  };
  if (!header.metadata.empty()) {
    std::string inner = "{";
    for (const auto& [key, value] : header.metadata) next(inner, concat(quoted(key), ':', quoted(value)));
    next(text, concat(quoted(kMetadata), ':', inner, '}'));
  }
  for (const SafetensorsEntry& entry : header.entries) {
    const auto* type =
        std::find_if(kTypes.begin(), kTypes.end(), [&](const auto& t) { return t.second == entry.dtype; });
    next(text, concat(quoted(entry.name), R"(:{"dtype":")", type->first, R"(","shape":)",
                      entry.shape.to_string(), R"(,"data_offsets":[)", entry.begin, ',', entry.end, "]}"));
  }
  text += '}';
  return text;
}

}  // namespace lamella::io::detail
