#include "cases.h"

namespace lamella::bench {

const std::vector<Layer>& all_layers() {
  static const std::vector<Layer> layers{
      {32, 64, 112, {1, 0, 0}},  {64, 128, 56, {1, 0, 0}},  {128, 128, 56, {1, 0, 0}},
      {128, 256, 28, {1, 0, 0}}, {256, 256, 28, {1, 0, 0}}, {256, 512, 14, {1, 0, 0}},
      {512, 512, 14, {5, 0, 0}}, {512, 1024, 7, {1, 0, 0}}, {1024, 1024, 7, {1, 0, 0}},
      {32, 16, 112, {0, 1, 0}},  {16, 96, 112, {0, 1, 0}},  {96, 24, 56, {0, 1, 0}},
      {24, 144, 56, {0, 2, 0}},  {144, 24, 56, {0, 1, 0}},  {144, 32, 28, {0, 1, 0}},
      {32, 192, 28, {0, 3, 0}},  {192, 32, 28, {0, 2, 0}},  {192, 64, 14, {0, 1, 0}},
      {64, 384, 14, {0, 4, 0}},  {384, 64, 14, {0, 3, 0}},  {384, 96, 14, {0, 1, 0}},
      {96, 576, 14, {0, 3, 0}},  {576, 96, 14, {0, 2, 0}},  {576, 160, 7, {0, 1, 0}},
      {160, 960, 7, {0, 3, 3}},  {960, 160, 7, {0, 2, 2}},  {960, 320, 7, {0, 1, 0}},
      {320, 1280, 7, {0, 1, 0}}, {16, 16, 112, {0, 0, 1}},  {16, 64, 112, {0, 0, 1}},
      {64, 24, 56, {0, 0, 1}},   {24, 72, 56, {0, 0, 2}},   {72, 24, 56, {0, 0, 1}},
      {72, 40, 28, {0, 0, 1}},   {40, 120, 28, {0, 0, 2}},  {120, 40, 28, {0, 0, 2}},
      {40, 240, 28, {0, 0, 1}},  {240, 80, 14, {0, 0, 1}},  {80, 200, 14, {0, 0, 1}},
      {200, 80, 14, {0, 0, 1}},  {80, 184, 14, {0, 0, 2}},  {184, 80, 14, {0, 0, 2}},
      {80, 480, 14, {0, 0, 1}},  {480, 112, 14, {0, 0, 1}}, {112, 672, 14, {0, 0, 2}},
      {672, 112, 14, {0, 0, 1}}, {672, 160, 7, {0, 0, 1}},
  };
  return layers;
}

const std::vector<Variant>& all_variants() {
  static const std::vector<Variant> variants{
      {"forward", Pass::Forward},
      {"forward+moments", Pass::Forward, Load::Plain, Hook::Moments},
      {"clamp+forward", Pass::Forward, Load::Clamp},
      {"clamp+forward+moments", Pass::Forward, Load::Clamp, Hook::Moments},
      {"hardswish+forward+moments", Pass::Forward, Load::HardSwish, Hook::Moments},
      {"input", Pass::Input},
      {"input+sums", Pass::Input, Load::Plain, Hook::ClampSums},
      {"input+hardswish sums", Pass::Input, Load::Plain, Hook::HardSwishSums},
      {"weight", Pass::Weight},
      {"clamp+weight", Pass::Weight, Load::Clamp},
      {"hardswish+weight", Pass::Weight, Load::HardSwish},
  };
  return variants;
}

}  // namespace lamella::bench
