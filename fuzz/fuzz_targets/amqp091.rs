#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rillway::wire::fuzzing::amqp091(data));
