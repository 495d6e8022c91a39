//! Opens the doors: sockets, admin HTTP, start and stop.
