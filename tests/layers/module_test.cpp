#include "lamella/layers/module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/layers/sequential.h"
#include "lamella/tensor/create.h"

namespace {

namespace lm = lamella;
using testing::ElementsAre;
using testing::HasSubstr;

/// A module with one parameter and one buffer, whose forward hands out the parameter it would use.
struct Leaf : lm::Module {
  explicit Leaf(double value = 1) : Module("Leaf"), weight(add_parameter("weight", lm::full({2, 3}, value))) {
    count = add_buffer("count", lm::zeros({}, {.dtype = lm::int64}));
    scratch = add_buffer("scratch", lm::zeros({2}), false);
  }
  lm::Tensor forward(const lm::Tensor&) override { return weight; }
  std::string settings() const override { return "2, 3"; }

  lm::Parameter weight;
  lm::Buffer count, scratch;
};

struct Pair : lm::Module {
  Leaf first{1};
  Leaf second{2};
  Pair() : Module("Pair") {
    add("first", first);
    bias = add_parameter("bias", lm::zeros({4}));
    add("second", second);
  }
  lm::Tensor forward(const lm::Tensor& x) override { return second(first(x)); }
  lm::Parameter bias;
};

struct Tree : lm::Module {
  Pair pair;
  lm::Sequential list{Leaf(3), Leaf(4)};
  Tree() : Module("Tree") {
    add("pair", pair);
    add("list", list);
  }
  lm::Tensor forward(const lm::Tensor& x) override { return list(pair(x)); }
};

template <class Entries>
std::vector<std::string> names(const Entries& entries) {
  std::vector<std::string> result;
  for (const auto& entry : entries) result.push_back(entry.first);
  return result;
}

double first_value(const lm::Tensor& tensor) { return tensor.to_vector<double>()[0]; }

TEST(ModuleTest, lists_parameters_depth_first_under_dotted_names) {
  Tree tree;
  EXPECT_THAT(
      names(tree.named_parameters()),
      ElementsAre("pair.bias", "pair.first.weight", "pair.second.weight", "list.0.weight", "list.1.weight"));
  EXPECT_EQ(tree.num_parameters(), 4 + 4 * 6);
  EXPECT_EQ(tree.parameters().size(), 5u);
  for (const lm::Tensor& parameter : tree.parameters()) EXPECT_TRUE(parameter.requires_grad());
  EXPECT_THAT(names(tree.pair.named_buffers()),
              ElementsAre("first.count", "first.scratch", "second.count", "second.scratch"));
}

TEST(ModuleTest, state_dict_has_persistent_tensors_in_pytorch_order) {
  Tree tree;
  EXPECT_THAT(
      names(tree.state_dict()),
      ElementsAre("pair.bias", "pair.first.weight", "pair.first.count", "pair.second.weight",
                  "pair.second.count", "list.0.weight", "list.0.count", "list.1.weight", "list.1.count"));
  for (const auto& [name, tensor] : tree.state_dict()) EXPECT_FALSE(tensor.requires_grad()) << name;
}

TEST(ModuleTest, state_dict_shares_memory_until_cloned) {
  Leaf leaf;
  lm::StateDict shared = leaf.state_dict();
  const lm::StateDict snapshot = shared.clone();
  lm::Tensor handle = leaf.weight;
  const lm::NoGrad no_grad;
  handle.fill_(9);
  EXPECT_EQ(first_value(shared.at("weight")), 9);
  EXPECT_EQ(first_value(snapshot.at("weight")), 1);
}

TEST(ModuleTest, copies_share_everything) {
  Tree tree;
  Tree copy = tree;
  lm::Tensor handle = copy.pair.first.weight;
  {
    const lm::NoGrad no_grad;
    handle.fill_(7);
  }
  copy.eval();
  EXPECT_EQ(first_value(tree.pair.first.weight), 7);
  EXPECT_FALSE(tree.is_training());
  EXPECT_FALSE(tree.list[1].is_training());
  EXPECT_FALSE(tree.pair.first.is_training());
}

TEST(ModuleTest, clone_is_independent_all_the_way_down) {
  Tree tree;
  tree.pair.first.train(false);
  Tree copy = lm::clone(tree);
  const auto before = tree.named_parameters(), after = copy.named_parameters();
  ASSERT_EQ(names(before), names(after));
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(before[i].second.to_vector<double>(), after[i].second.to_vector<double>());
    EXPECT_NE(before[i].second.data<float>(), after[i].second.data<float>()) << before[i].first;
    EXPECT_TRUE(after[i].second.requires_grad());
  }
  EXPECT_FALSE(copy.pair.first.is_training());
  EXPECT_TRUE(copy.pair.second.is_training());
  copy.list.eval();
  EXPECT_TRUE(tree.list.is_training());
}

TEST(ModuleTest, members_of_a_clone_are_its_registered_children) {
  Tree tree;
  Tree copy = lm::clone(tree);
  // Members, registered children and elements of the Sequential must all be the same new tensors.
  EXPECT_EQ(copy.pair.first.weight->data<float>(), copy.state_dict().at("pair.first.weight").data<float>());
  EXPECT_EQ(copy.pair.bias->data<float>(), copy.state_dict().at("pair.bias").data<float>());
  EXPECT_EQ(copy.list(lm::zeros({1})).data<float>(), copy.state_dict().at("list.1.weight").data<float>());
  auto& through_tree = dynamic_cast<Leaf&>(copy.child("pair.second"));
  EXPECT_EQ(through_tree.weight->data<float>(), copy.pair.second.weight->data<float>());
  EXPECT_NE(through_tree.weight->data<float>(), tree.pair.second.weight->data<float>());
}

TEST(ModuleTest, clone_keeps_sharing_within) {
  struct Tied : lm::Module {
    Leaf a, b = a;
    Tied() : Module("Tied") {
      add("a", a);
      add("b", b);
    }
  };
  Tied tied;
  EXPECT_THAT(names(tied.named_parameters()), ElementsAre("a.weight"));
  EXPECT_THAT(names(tied.state_dict()), ElementsAre("a.weight", "a.count", "b.weight", "b.count"));
  int visits = 0;
  tied.apply([&](const std::string&, lm::Module&) { ++visits; });
  EXPECT_EQ(visits, 2);
  const Tied copy = lm::clone(tied);
  EXPECT_EQ(copy.a.weight->data<float>(), copy.b.weight->data<float>());
  EXPECT_NE(copy.a.weight->data<float>(), tied.a.weight->data<float>());
}

TEST(ModuleTest, clone_refuses_a_base_class) {
  struct Derived : Leaf {};
  const Derived derived;
  const Leaf& base = derived;
  EXPECT_THROW(lm::clone(base), lm::Error);
  EXPECT_NO_THROW(lm::clone(derived));
}

TEST(ModuleTest, copies_after_a_clone_are_shallow_again) {
  Leaf leaf;
  { const Leaf copy = lm::clone(leaf); }
  const Leaf handle = leaf;
  EXPECT_EQ(handle.weight->data<float>(), leaf.weight->data<float>());
}

TEST(ModuleTest, to_converts_in_place_so_that_held_handles_stay_valid) {
  Tree tree;
  const lm::Tensors held = tree.parameters();
  tree.to(lm::float64);
  for (const lm::Tensor& parameter : held) {
    EXPECT_EQ(parameter.dtype(), lm::float64);
    EXPECT_TRUE(parameter.requires_grad());
    EXPECT_TRUE(parameter.is_leaf());
  }
  EXPECT_EQ(held[1].data<double>(), tree.pair.first.weight->data<double>());
  EXPECT_EQ(first_value(held[2]), 2);
  EXPECT_EQ(tree.pair.first.count->dtype(), lm::int64);
  EXPECT_EQ(tree.pair.first.scratch->dtype(), lm::float64);
  EXPECT_THROW(tree.to(lm::int32), lm::DTypeError);
}

TEST(ModuleTest, to_converts_gradients) {
  Leaf leaf;
  lm::Tensor handle = leaf.weight;
  handle.set_grad(lm::full({2, 3}, 5));
  leaf.to(lm::float64);
  ASSERT_TRUE(handle.grad().defined());
  EXPECT_EQ(handle.grad().dtype(), lm::float64);
  EXPECT_EQ(first_value(handle.grad()), 5);
  leaf.zero_grad();
  EXPECT_FALSE(handle.grad().defined());
}

TEST(ModuleTest, to_memory_format_changes_strides_alone) {
  struct Four : lm::Module {
    lm::Parameter weight = add_parameter("weight", lm::rand({2, 3, 4, 5}));
    lm::Parameter bias = add_parameter("bias", lm::rand({2}));
    Four() : Module("Four") {}
  };
  Four four;
  const auto before = four.weight->to_vector<float>();
  four.to(lm::MemoryFormat::ChannelsLast);
  EXPECT_TRUE(four.weight->is_contiguous(lm::MemoryFormat::ChannelsLast));
  EXPECT_EQ(four.weight->to_vector<float>(), before);
  four.to(lm::MemoryFormat::Contiguous);
  EXPECT_TRUE(four.weight->is_contiguous());
}

TEST(ModuleTest, to_an_absent_device_changes_nothing) {
  Leaf leaf;
  if (lm::cuda_device_count() > 0) GTEST_SKIP() << "there is a GPU";
  EXPECT_THROW(leaf.to(lm::Device::cuda()), lm::DeviceError);
  EXPECT_EQ(leaf.weight->device(), lm::Device::cpu());
}

TEST(ModuleTest, load_state_dict_copies_and_converts) {
  Tree from, to;
  lm::StateDict dict = from.state_dict().clone();
  dict.set("pair.bias", lm::full({4}, 8, {.dtype = lm::float64}));
  const lm::Tensor held = to.pair.bias;
  EXPECT_TRUE(to.load_state_dict(dict).ok());
  EXPECT_EQ(first_value(held), 8);
  EXPECT_EQ(held.dtype(), lm::float32);
  EXPECT_NE(to.pair.first.weight->data<float>(), dict.at("pair.first.weight").data<float>());
}

TEST(ModuleTest, load_state_dict_lists_all_that_does_not_fit_and_changes_nothing) {
  Tree tree;
  lm::StateDict dict;
  for (const auto& [name, tensor] : tree.state_dict())
    if (name != "pair.first.weight") dict.set(name, lm::full(tensor.shape(), 5, {.dtype = tensor.dtype()}));
  dict.set("pair.bias", lm::zeros({5}));
  dict.set("head.weight", lm::zeros({1}));
  try {
    tree.load_state_dict(dict);
    FAIL() << "loaded what does not fit";
  } catch (const lm::Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("missing: pair.first.weight"));
    EXPECT_THAT(error.what(), HasSubstr("unexpected: head.weight"));
    EXPECT_THAT(error.what(), HasSubstr("pair.bias is [5], must be [4]"));
  }
  lm::LoadReport from_a_file;
  from_a_file.unexpected = {"\x1b[2J"};
  EXPECT_THAT(from_a_file.to_string(), HasSubstr("unexpected: ?[2J"));
  EXPECT_EQ(first_value(tree.pair.second.weight), 2);

  const lm::LoadReport report = tree.load_state_dict(dict, {.strict = false});
  EXPECT_THAT(report.missing, ElementsAre("pair.first.weight"));
  EXPECT_THAT(report.unexpected, ElementsAre("head.weight"));
  ASSERT_EQ(report.mismatched.size(), 1u);
  EXPECT_EQ(first_value(tree.pair.second.weight), 5);
  EXPECT_EQ(first_value(tree.pair.first.weight), 1);
  EXPECT_EQ(first_value(tree.pair.bias), 0);
}

TEST(ModuleTest, apply_visits_parents_first) {
  Tree tree;
  std::vector<std::string> seen;
  tree.apply(
      [&](const std::string& path, lm::Module& module) { seen.push_back(path + ':' + module.type_name()); });
  EXPECT_THAT(seen, ElementsAre(":Tree", "pair:Pair", "pair.first:Leaf", "pair.second:Leaf",
                                "list:Sequential", "list.0:Leaf", "list.1:Leaf"));
}

TEST(ModuleTest, child_finds_by_path_and_says_what_there_is) {
  Tree tree;
  EXPECT_EQ(tree.child("list.1").type_name(), "Leaf");
  EXPECT_EQ(&tree.child(""), &tree);
  try {
    tree.child("pair.third");
    FAIL();
  } catch (const lm::Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("pair.third"));
    EXPECT_THAT(error.what(), HasSubstr("first, second"));
  }
}

TEST(ModuleTest, requires_grad_can_be_switched_off) {
  Tree tree;
  tree.pair.set_requires_grad(false);
  EXPECT_FALSE(tree.pair.bias->requires_grad());
  EXPECT_TRUE(tree.list.parameters()[0].requires_grad());
  EXPECT_FALSE(lm::clone(tree).pair.bias->requires_grad());
}

TEST(ModuleTest, refuses_bad_names_and_cycles) {
  struct Bad : Leaf {
    void parameter(const std::string& name) { add_parameter(name, lm::zeros({1})); }
    void child(const lm::Sequential& module) { add("self", module); }
  };
  Bad bad;
  EXPECT_THROW(bad.parameter(""), lm::Error);
  EXPECT_THROW(bad.parameter("a.b"), lm::Error);
  EXPECT_THROW(bad.parameter("weight"), lm::Error);
  EXPECT_THROW(bad.parameter("count"), lm::Error);
  lm::Sequential list;
  EXPECT_THROW(list.push_back(list), lm::Error);
  lm::Sequential outer(Leaf(), list);
  EXPECT_THROW(list.push_back(outer), lm::Error);
}

TEST(ModuleTest, refuses_to_replace_a_registered_child) {
  Pair pair;
  EXPECT_THROW(pair.first = Leaf(5), lm::Error);
  EXPECT_EQ(first_value(pair.first.weight), 1);
  Pair other;
  EXPECT_NO_THROW(pair = lm::clone(other));
  EXPECT_EQ(pair.first.weight->data<float>(), pair.state_dict().at("first.weight").data<float>());
  Leaf alone;
  EXPECT_NO_THROW(alone = Leaf(5));
  EXPECT_EQ(first_value(alone.weight), 5);
}

TEST(ModuleTest, forward_says_when_there_is_none) {
  struct Empty : lm::Module {
    Empty() : Module("Empty") {}
  };
  Empty empty;
  EXPECT_THROW(empty(lm::zeros({1})), lm::Error);
}

TEST(ModuleTest, prints_its_tree) {
  EXPECT_EQ(Tree().to_string(),
            "Tree(\n"
            "  (pair): Pair(\n"
            "    (first): Leaf(2, 3)\n"
            "    (second): Leaf(2, 3)\n"
            "  )\n"
            "  (list): Sequential(\n"
            "    (0): Leaf(2, 3)\n"
            "    (1): Leaf(2, 3)\n"
            "  )\n"
            ")");
}

TEST(SequentialTest, runs_in_order_and_indexes) {
  lm::Sequential list(Leaf(1), Leaf(2));
  list.push_back(Leaf(3));
  EXPECT_EQ(list.size(), 3u);
  EXPECT_EQ(first_value(list(lm::zeros({1}))), 3);
  EXPECT_EQ(first_value(list.at<Leaf>(1).weight), 2);
  EXPECT_THROW(list[3], lm::Error);
  EXPECT_THROW(list.at<Pair>(0), lm::Error);
  lm::Sequential empty;
  const lm::Tensor x = lm::ones({2});
  EXPECT_EQ(empty(x).data<float>(), x.data<float>());
}

TEST(SequentialTest, one_sequential_in_another_is_nested_unless_copied) {
  const lm::Sequential inner{Leaf()};
  const lm::Sequential copy(inner);  // NOLINT(performance-unnecessary-copy-initialization)
  EXPECT_EQ(copy.size(), 1u);
  EXPECT_THAT(names(copy.named_parameters()), ElementsAre("0.weight"));
  const lm::Sequential outer(inner, inner);
  EXPECT_THAT(names(outer.state_dict()), ElementsAre("0.0.weight", "0.0.count", "1.0.weight", "1.0.count"));
}

TEST(StateDictTest, keeps_order_and_replaces_in_place) {
  lm::StateDict dict{{"b", lm::zeros({1})}, {"a", lm::zeros({2})}};
  dict.set("b", lm::zeros({3}));
  EXPECT_THAT(names(dict), ElementsAre("b", "a"));
  EXPECT_EQ(dict.at("b").numel(), 3);
  EXPECT_EQ(dict.find("c"), nullptr);
  EXPECT_THROW(dict.at("c"), lm::Error);
  EXPECT_EQ(dict[1].first, "a");
}

}  // namespace
