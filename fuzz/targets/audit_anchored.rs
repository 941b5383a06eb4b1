#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tenure::fuzz::run("audit_anchored", data));
