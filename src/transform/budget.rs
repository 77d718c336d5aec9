//! What a program may use for one message: memory and steps, and the stack.
//!
//! The interpreter has no limits of its own, but it asks for its table of terms at each term that it
//! evaluates ([`step`]), and all values are ours, so each allocation is counted ([`take`]). What is
//! counted is never given back, so the memory in use is less. A step counts as [`STEP_BYTES`]: the most
//! that the interpreter keeps for one. So one number limits both, and it depends on the message alone: a
//! message that is over the limit is so on every machine, however busy.
//!
//! A program that is over its limit is unwound at its next step. Nothing else can end it: an error could
//! be caught by the program (`try`, `?`), and values that are only compared return no error. It is the
//! only place in the daemon that unwinds on purpose, nothing is printed, and
//! [`Program::run`](super::Program::run) catches it.

use std::cell::Cell;
use std::panic::resume_unwind;

/// Budget of every message.
pub(super) const BASE_BYTES: u64 = 16 << 20;

/// Budget for each byte of its body, besides.
pub(super) const PER_BYTE: u64 = 128;

/// What one step counts for.
pub(super) const STEP_BYTES: u64 = 64;

/// Most of the stack that a program may use. The rest is for dropping what it has built, which is
/// recursive too.
const STACK_BYTES_MAX: usize = 8 << 20;

/// Stack of a thread that runs programs. Only what is used takes memory.
pub const THREAD_STACK_BYTES: usize = 256 << 20;

/// Deepest nesting of a value. JSON parsers of others give up at 128.
pub(super) const DEPTH_MAX: u32 = 127;

/// Most parts of a value, counted as often as they occur in it: a value may hold another one twice, which
/// takes no memory until it is written.
pub(super) const SIZE_MAX: u64 = 64 << 20;

/// The limit that a program has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Steps and memory.
    Work,
    /// Values nested too deep.
    Depth,
    /// One value too large.
    Size,
    /// The program calls itself too deep.
    Stack,
}

/// Payload of the unwinding.
pub(super) struct Spent;

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
    static FLOOR: Cell<usize> = const { Cell::new(0) };
    static MESSAGE: Cell<u64> = const { Cell::new(0) };
    static REACHED: Cell<Option<Limit>> = const { Cell::new(None) };
}

/// Begins anew, with the budget for a body of this size.
pub(super) fn start(body_bytes: usize) {
    LEFT.set(BASE_BYTES + PER_BYTE * body_bytes as u64);
    REACHED.set(None);
    MESSAGE.set(message().wrapping_add(1));
    FLOOR.set(here().saturating_sub(STACK_BYTES_MAX));
}

/// Number of the run since the thread began, for what is counted once in each.
pub(super) fn message() -> u64 {
    MESSAGE.get()
}

/// The limit that was reached since the start.
pub(super) fn reached() -> Option<Limit> {
    REACHED.get()
}

/// True if a limit was reached. Then loops over values end early: their result is not used.
pub(super) fn is_spent() -> bool {
    REACHED.get().is_some()
}

/// Notes that a limit is reached, for the next step to end the program.
#[cold]
pub(super) fn spend(limit: Limit) {
    if REACHED.get().is_none() {
        REACHED.set(Some(limit));
    }
    LEFT.set(0);
}

/// Counts memory. False if there is not that much left.
#[inline]
pub(super) fn take(bytes: u64) -> bool {
    match LEFT.get().checked_sub(bytes) {
        Some(left) => {
            LEFT.set(left);
            true
        }
        None => {
            spend(Limit::Work);
            false
        }
    }
}

/// Counts a step of the interpreter. Does not return if a limit is reached.
#[inline]
pub(super) fn step() {
    if !take(STEP_BYTES) {
        end();
    }
    if here() < FLOOR.get() {
        spend(Limit::Stack);
        end();
    }
}

#[cold]
fn end() -> ! {
    resume_unwind(Box::new(Spent))
}

/// Where the stack is now. It grows downwards on all machines that Rust knows.
#[inline(always)]
fn here() -> usize {
    let here = 0u8;
    std::ptr::from_ref(std::hint::black_box(&here)).addr()
}
