#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// Named tensors in a fixed order: what a module holds, what a checkpoint file holds. Its tensors
/// are handles.
class LAMELLA_API StateDict {
 public:
  using Entry = std::pair<std::string, Tensor>;
  using const_iterator = std::vector<Entry>::const_iterator;

  StateDict() = default;
  StateDict(std::initializer_list<Entry> entries);

  /// Appends, or replaces the tensor of a name that is there already (which keeps its place).
  void set(const std::string& name, const Tensor& tensor);
  /// Null if there is no such name. Valid until the next set().
  const Tensor* find(const std::string& name) const;
  /// Throws Error naming the name if there is none.
  const Tensor& at(const std::string& name) const;
  bool contains(const std::string& name) const { return find(name) != nullptr; }

  std::size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  const_iterator begin() const { return entries_.begin(); }
  const_iterator end() const { return entries_.end(); }
  const Entry& operator[](std::size_t i) const { return entries_[i]; }

  /// The same names with copies of the numbers: a snapshot that further training does not change.
  StateDict clone() const;

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string, std::size_t> positions_;
};

/// One tensor whose shape in a StateDict is not the module's.
struct ShapeMismatch {
  std::string name;
  Shape expected;  ///< in the module
  Shape found;     ///< in the dictionary
};

/// What load_state_dict() found.
struct LoadReport {
  std::vector<std::string> missing;       ///< in the module, not in the dictionary
  std::vector<std::string> unexpected;    ///< in the dictionary, not in the module
  std::vector<ShapeMismatch> mismatched;  ///< in both, with different shapes
  bool ok() const { return missing.empty() && unexpected.empty() && mismatched.empty(); }
  /// Everything listed, one name a line.
  std::string to_string() const;
};

}  // namespace lamella
