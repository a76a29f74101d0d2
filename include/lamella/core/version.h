#pragma once

/// The version of these headers. Before 1.0, a new minor number may change the interface.
#define LAMELLA_VERSION_MAJOR 0
#define LAMELLA_VERSION_MINOR 1
#define LAMELLA_VERSION_PATCH 0
#define LAMELLA_VERSION "0.1.0"
