#pragma once

#include <lamella/lamella.h>

#include <string>
#include <vector>

/// An image and a line of text below it.
struct Picture {
  lamella::data::Image image;
  std::string caption;
};

/// Draws images side by side in characters, as many as fit into `columns`, then the next row. The brighter a
/// pixel, the denser its character: made for light on dark. `brightest` is the byte that counts as white.
/// Images wider than half of `columns` are made smaller.
std::string draw(const std::vector<Picture>& pictures, int brightest = 255, int columns = 78);
