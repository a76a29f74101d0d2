#pragma once

/// Marks what a shared build of the library exports; everything else is hidden.
#define LAMELLA_API __attribute__((visibility("default")))
