#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| polymq_fuzz::http::headers(bytes));
