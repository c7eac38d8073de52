//! Carry keys: how a field that a target protocol lacks travels in its headers.
