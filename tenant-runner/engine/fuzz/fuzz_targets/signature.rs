#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| nexaas_engine::fuzzing::signature(data));
