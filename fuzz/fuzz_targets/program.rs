#![no_main]

// A program, a NUL, and a body.
libfuzzer_sys::fuzz_target!(|data: &[u8]| rillway::transform::fuzzing::program(data));
