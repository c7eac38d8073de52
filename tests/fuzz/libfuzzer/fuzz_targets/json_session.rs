#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| polymq_fuzz::web_socket::session(bytes));
