#include "cells.h"

#include <algorithm>
#include <cstdio>
#include <memory>

#include "lamella/models/mobilenet_v1.h"
#include "lamella/models/mobilenet_v2.h"
#include "lamella/models/mobilenet_v3.h"

namespace lamella::bench {

std::optional<DType> Cell::autocast() const {
  return type == "bfloat16" ? std::optional(bfloat16) : std::nullopt;
}

const std::vector<Cell>& named_cells() {
  // Row-major where that is the faster one of Lamella's: float32 without TF32.
  static const std::vector<Cell> cells = {
      {.name = "v2-224-bf16", .type = "bfloat16", .capture = true},
      {.name = "v1-224-bf16", .model = "v1", .type = "bfloat16", .capture = true},
      {.name = "v3-224-bf16", .model = "v3-large", .type = "bfloat16", .capture = true},
      {.name = "v2-224-tf32", .type = "tf32", .capture = true},
      {.name = "v2-224-float32", .format = MemoryFormat::Contiguous, .capture = true},
      {.name = "v2-32-bf16",
       .size = 32,
       .batch = 128,
       .classes = 10,
       .type = "bfloat16",
       .capture = true,
       .note = "the strides of 224 pixels"},
      {.name = "v2-32-small-stem-bf16",
       .size = 32,
       .batch = 128,
       .classes = 10,
       .small_stem = true,
       .type = "bfloat16",
       .capture = true},
      {.name = "cifar10-input",
       .size = 32,
       .batch = 128,
       .classes = 10,
       .small_stem = true,
       .type = "bfloat16",
       .capture = true,
       .input = true,
       .note = "training from a loader, as a share of training on data that lies on the device"}};
  return cells;
}

std::vector<std::string> cell_names() {
  std::vector<std::string> names;
  for (const Cell& cell : named_cells()) names.push_back(cell.name);
  return names;
}

Cell cell_of(const std::string& name) {
  const std::vector<Cell>& cells = named_cells();
  return *std::find_if(cells.begin(), cells.end(), [&](const Cell& cell) { return cell.name == name; });
}

std::string describe(const Cell& cell) {
  char width[32];
  std::snprintf(width, sizeof width, "%g", cell.width);
  const std::string size = std::to_string(cell.size);
  return "MobileNet " + cell.model + ' ' + width + ", " + size + 'x' + size + " pixels, batch " +
         std::to_string(cell.batch) + ", " + std::to_string(cell.classes) + " classes" +
         (cell.small_stem ? ", small stem" : "") + ", " + cell.type + (cell.capture ? ", captured" : "");
}

std::string list_of_cells() {
  std::string lines;
  for (const Cell& cell : named_cells()) {
    char name[64];
    std::snprintf(name, sizeof name, "%-22s  ", cell.name.c_str());
    lines += name + describe(cell) + ", " + lamella::name(cell.format) +
             (cell.note.empty() ? "" : "; " + cell.note) + '\n';
  }
  return lines;
}

std::unique_ptr<Module> build(const Cell& c) {
  const auto options = [&]<class Options>(Options o) {
    o.classes = c.classes;
    o.width = c.width;
    o.dropout = 0;
    o.small_stem = c.small_stem;
    return o;
  };
  if (c.model == "v1") return std::make_unique<models::MobileNetV1>(options(models::MobileNetV1Options{}));
  if (c.model == "v2") return std::make_unique<models::MobileNetV2>(options(models::MobileNetV2Options{}));
  return std::make_unique<models::MobileNetV3>(
      c.model == "v3-small" ? models::MobileNetV3Size::Small : models::MobileNetV3Size::Large,
      options(models::MobileNetV3Options{}));
}

}  // namespace lamella::bench
