//! Fuzz target: any program on any body. Nothing ends the process, and every result is JSON.
//!
//! Not part of the crate's interface.

use super::{Input, Program};

/// A program, a NUL, and a body.
pub fn program(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (program, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if let Ok(program) = std::str::from_utf8(program) {
        // On a stack as it is in the daemon. What panics there panics here.
        let ran = super::on_large_stack(|| run(program, body));
        assert!(ran.is_ok(), "{program:?} of {:?}", String::from_utf8_lossy(body));
    }
}

/// Compiles and runs a program. Panics if a promise is broken.
fn run(program: &str, body: &[u8]) {
    let Ok(program) = Program::compile(program) else { return };
    let input = Input { body, message: Some(br#"{"offset":7,"properties":{"subject":"s"}}"#) };
    let kept = program.keeps(input);
    let shaped = program.reshape(input);
    // The same again: the result depends on nothing else.
    assert_eq!(kept, program.keeps(input));
    assert_eq!(shaped, program.reshape(input));
    #[cfg(feature = "transform")]
    agrees(&program, input);
    if let Ok(Some(made)) = shaped {
        let parsed: Result<&serde_json::value::RawValue, _> = serde_json::from_slice(&made);
        assert!(parsed.is_ok(), "{:?} made {:?}", program, String::from_utf8_lossy(&made));
    }
}

/// A simple program has the interpreter's results, unless the interpreter reaches its limit, which it does sooner.
#[cfg(feature = "transform")]
fn agrees(program: &Program, input: Input<'_>) {
    fn compare<T: PartialEq + std::fmt::Debug>(ours: Option<T>, theirs: Result<T, super::Failure>) {
        match (ours, theirs) {
            (Some(ours), Ok(theirs)) => assert_eq!(ours, theirs),
            (Some(ours), Err(failure)) => assert!(failure.is_over_limit, "{ours:?}: {failure}"),
            (None, _) => {}
        }
    }
    let compiled = &program.compiled;
    compare(compiled.simply_keeps(input), compiled.interpreted_keeps(input));
    let mut made = Vec::new();
    let shaped = compiled.simply_reshape(input, &mut made).map(|is_made| is_made.then_some(made));
    compare(shaped, compiled.interpreted_reshape(input));
}
