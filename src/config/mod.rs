//! Directives, declared once: file, flags, CONFIG GET and SET.
