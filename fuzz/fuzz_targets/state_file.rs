#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rillway::consumer::fuzzing::state_file(data));
