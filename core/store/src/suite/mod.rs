//! Rules every engine must keep.
