//! Conversations with real bytes; the broker is played by the test.
