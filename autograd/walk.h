#pragma once

#include <cstdint>
#include <memory>
#include <queue>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "autograd/node.h"
#include "autograd/side_branch.h"

namespace lamella::detail {

/// A gradient on its way: empty, a buffer of ours, or a tensor handed over that somebody else may hold too.
struct Slot {
  Tensor buffer;
  bool written = false;
  bool borrowed = false;
  Tensor sums;  ///< left with the gradient: see GradientContext::leave_sums()
};

/// One walk over the graph.
class Walk {
 public:
  /// `collect_only`: leaves keep their grad(); what they would get stays in this walk.
  Walk(bool retain_graph, bool collect_only) : retain_graph_(retain_graph), collect_only_(collect_only) {}
  /// Inside the gradient function of an operator that ran a block again: what the block took from outside
  /// goes to the walk that runs that operator.
  struct Nested {};
  explicit Walk(Nested);

  void seed(const Tensor& root, const Tensor& gradient);
  void collect(const Tensor& input);
  /// Restricts a collecting walk to what lies between the roots and the collected tensors.
  void find_paths(const Tensors& roots);
  void run();
  Tensor collected(const Tensor& input);

  bool wants(const Edge& edge);
  /// Where the next contribution to `edge` goes, and whether it is the first.
  std::pair<Tensor, GradientWrite> destination(const Edge& edge);
  /// Takes a finished tensor as the first contribution to a result of an operator, without a copy. False: not
  /// possible.
  bool hand_over(const Edge& edge, const Tensor& gradient);
  bool is_between_operators(const Edge& edge);
  bool is_sole_contribution(const Edge& edge);
  void leave_sums(const Edge& edge, const Tensor& sums);
  bool takes_parts(const Edge& edge);
  void add_parts(const Edge& edge, const GradientParts& parts);
  /// Work that leaves parts for `edge`, in the branch of the walk that adds these up.
  void beside(const Edge& edge, const Tensors& reads, const std::function<void()>& work);
  /// Ends the branches of this walk and of those around it: before a user's code is called.
  void join_branches();
  /// What has arrived at `edge` so far; undefined if nothing.
  Tensor arrived(const Edge& edge);

 private:
  struct Arrival {
    std::shared_ptr<Node> node;
    std::vector<Slot> slots;
  };
  struct Earlier {
    bool operator()(const Node* a, const Node* b) const { return a->sequence < b->sequence; }
  };

  /// This walk, or the one around it that meets `edge` itself.
  Walk& keeper(const Edge& edge);
  Slot& arrive(const std::shared_ptr<Node>& node, int output);
  /// Finds out which of the operators below `start` lead to a collected tensor.
  void explore(const std::shared_ptr<Node>& start);
  /// Null for a leaf whose gradient is written in place.
  Slot* slot_of(const Edge& edge);
  void run_hooks(const std::vector<GradientHook>& hooks, Slot& slot, const Shape& shape, DType dtype);
  void visit(Arrival& arrival);
  /// Where the next contribution to a leaf's gradient goes that nothing else is to meet.
  static std::pair<Tensor, GradientWrite> destination(TensorImpl& leaf, const Edge& edge);
  /// Adds up the parts that have been handed over, all or those of this leaf's if there are any; or all of
  /// them in the branch, if that has work already.
  void add_up();
  void add_up(const TensorImpl& leaf);
  void add_up_beside();
  void finish_leaves();

  bool retain_graph_;
  bool collect_only_;
  Walk* around_ = nullptr;         ///< of a nested walk
  std::uint64_t block_start_ = 0;  ///< operators of the block have larger sequence numbers
  std::unordered_map<Node*, Arrival> arrivals_;
  std::priority_queue<Node*, std::vector<Node*>, Earlier> queue_;
  std::unordered_map<TensorImpl*, Slot> hooked_leaves_;  ///< their gradients wait for the end
  std::vector<std::shared_ptr<TensorImpl>> hooked_order_;
  struct Later {
    Edge edge;
    GradientParts parts;
  };
  std::vector<Later> later_;      ///< of leaves whose gradients are written in place
  std::int64_t later_bytes_ = 0;  ///< of their parts
  SideBranch branch_;             ///< whose work leaves such parts, and adds them up
  std::unordered_map<TensorImpl*, Slot> collected_leaves_;
  std::unordered_set<Node*> explored_, leads_to_collected_;
  std::vector<std::shared_ptr<Node>>
      explored_from_;  ///< keeps what was explored from being freed and made anew
  std::unordered_map<Node*, std::vector<std::pair<int, Tensor>>> collected_outputs_;
};

}  // namespace lamella::detail
