#pragma once

/// @file
/// All layers: modules with their parameters (layers/modules/) and the blocks made of them. The functions
/// they call are in `layers/<family>.h`.
#include "lamella/layers/blocks.h"
#include "lamella/layers/fold.h"
#include "lamella/layers/freeze.h"
#include "lamella/layers/init.h"
#include "lamella/layers/module.h"
#include "lamella/layers/modules/activation.h"
#include "lamella/layers/modules/conv.h"
#include "lamella/layers/modules/dropout.h"
#include "lamella/layers/modules/flatten.h"
#include "lamella/layers/modules/linear.h"
#include "lamella/layers/modules/norm.h"
#include "lamella/layers/modules/pool.h"
#include "lamella/layers/sequential.h"
#include "lamella/layers/summary.h"
