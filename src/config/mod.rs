//! Turns YAML into a checked `Config`, reporting every problem at once with its key and line.
