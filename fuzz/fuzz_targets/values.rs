#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut values = rillway::sink::fuzzing::Values::default();
    values.body(data);
    values.message(data);
});
