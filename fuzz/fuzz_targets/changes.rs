#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rillway::sink::fuzzing::changes(data));
