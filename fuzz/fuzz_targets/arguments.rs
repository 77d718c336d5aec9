#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rillway::cli::fuzzing::arguments(data));
