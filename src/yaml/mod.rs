//! A strict YAML document with positions: one document, no aliases, tags or duplicate keys.
