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
  /// A name and its tensor.
  using Entry = std::pair<std::string, Tensor>;
  /// What begin() gives.
  using const_iterator = std::vector<Entry>::const_iterator;

  StateDict() = default;
  /// set() of each.
  StateDict(std::initializer_list<Entry> entries);

  /// Appends, or replaces the tensor of a name that is there already (which keeps its place).
  void set(const std::string& name, const Tensor& tensor);
  /// The tensor of a name; null if there is no such name. Valid until the next set().
  const Tensor* find(const std::string& name) const;
  /// The tensor of a name. Throws Error naming it if there is none.
  const Tensor& at(const std::string& name) const;
  /// Whether there is such a name.
  bool contains(const std::string& name) const { return find(name) != nullptr; }

  /// Number of tensors.
  std::size_t size() const { return entries_.size(); }
  /// True if there are none.
  bool empty() const { return entries_.empty(); }
  /// For range-based loops: name and tensor in order.
  const_iterator begin() const { return entries_.begin(); }
  /// Behind the last.
  const_iterator end() const { return entries_.end(); }
  /// The i-th name and tensor; not checked.
  const Entry& operator[](std::size_t i) const { return entries_[i]; }

  /// The same names with copies of the numbers: a snapshot that further training does not change.
  StateDict clone() const;

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string, std::size_t> positions_;
};

/// One tensor whose shape in a StateDict is not the module's.
struct ShapeMismatch {
  std::string name;  ///< as in the state dictionary
  Shape expected;    ///< in the module
  Shape found;       ///< in the dictionary
};

/// What load_state_dict() found.
struct LoadReport {
  std::vector<std::string> missing;       ///< in the module, not in the dictionary
  std::vector<std::string> unexpected;    ///< in the dictionary, not in the module
  std::vector<ShapeMismatch> mismatched;  ///< in both, with different shapes
  /// True if everything fits.
  bool ok() const { return missing.empty() && unexpected.empty() && mismatched.empty(); }
  /// Everything listed, one name a line.
  std::string to_string() const;
};

}  // namespace lamella
