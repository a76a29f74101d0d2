#pragma once

#include "lamella/data/transforms.h"

namespace lamella::data::detail {

/// resize() of a part of `image`; pixels outside the part play no role.
Image resize_region(const Image& image, int top, int left, int height, int width, int out_height,
                    int out_width);

}  // namespace lamella::data::detail
