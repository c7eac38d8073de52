//! Topics, their two texts, and patterns.
