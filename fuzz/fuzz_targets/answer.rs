#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rillway::otlp::fuzz_answer(data));
