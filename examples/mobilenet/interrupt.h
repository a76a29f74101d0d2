#pragma once

/// From now on Ctrl-C (SIGINT) and SIGTERM only ask to stop; a second one ends the program at once.
void catch_interrupts();
/// Whether stopping was asked for.
bool interrupted();
